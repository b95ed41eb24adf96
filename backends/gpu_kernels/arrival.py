"""Which program of a row comes last: it goes on with what all of them left; and what must have
happened before it may. Knows no op."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def settled(SETTLE: tl.constexpr):
    """A barrier behind which what all threads of the program read and stored has happened, so that
    one thread may tell other programs of it.

    SETTLE: a barrier does not wait for a wave's loads and stores, as on AMD's GPUs; each wave then
    waits for its own first. It is the compiler's to say (`triton_compiler`).
    """
    if SETTLE:
        tl.inline_asm_elementwise(
            "s_waitcnt vmcnt(0)\n\tv_mov_b32 $0, $1", "=v,v,~{memory}", [tl.arange(0, 64)],
            dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip
    tl.debug_barrier()


@triton.jit
def is_last(arrived, parts, SETTLE: tl.constexpr):
    """Whether this program is the last of `parts` that count themselves in `arrived`, which it
    leaves zero. It reads what the others stored before; loads of that want `.cg`."""
    settled(SETTLE)  # every thread's part is written before this program counts itself
    comes_last = tl.atomic_add(arrived, 1, sem="acq_rel") == parts - 1
    if comes_last:
        tl.store(arrived, 0)
    return comes_last
