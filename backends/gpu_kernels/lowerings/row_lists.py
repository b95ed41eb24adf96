"""From how many groups of ids the floor of a row's list is taken (`gpu_kernels/first_ids.py`).
Knows no op.
"""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.launches import next_power_of_two


def groups_of_part(vocab: int, block: int, groups: int) -> int:
    """Groups of ids in a part of `block` ids, a power of two, where a row has about `groups`: its
    list can be short for nearly as many ids."""
    return min(max(groups // next_power_of_two(-(-vocab // block)), 1), block)
