"""Which program of a row comes last: it goes on with what all of them left. Knows no op."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def is_last(arrived, parts):
    """Whether this program is the last of `parts` that count themselves in `arrived`, which it
    leaves zero. It reads what the others stored before; loads of that want `.cg`."""
    tl.debug_barrier()  # every thread's part is written before this program counts itself
    comes_last = tl.atomic_add(arrived, 1, sem="acq_rel") == parts - 1
    if comes_last:
        tl.store(arrived, 0)
    return comes_last
