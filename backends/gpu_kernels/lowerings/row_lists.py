"""How many ids the list of a row holds, and from how many groups its floor is taken
(`gpu_kernels/first_ids.py`). Knows no op.
"""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.launches import next_power_of_two

LIST = 1024
"""Ids: as many as a program holds in registers at four a thread."""
_GROUPS = 512  # of a row: a list can be short for nearly as many ids as there are groups


def groups_of_part(vocab: int, block: int) -> int:
    """Groups of ids in a part of `block` ids, a power of two."""
    return max(_GROUPS // next_power_of_two(-(-vocab // block)), 1)
