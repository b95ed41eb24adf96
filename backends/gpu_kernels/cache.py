"""Triton kernel that writes rows to a paged cache. Knows no target."""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.rounding import fp8_bits


@triton.jit
def append(
    cache,  # rows of FIRST + SECOND elements, with FP8 their bits
    slots,  # [T] i32
    first,  # [T, FIRST]
    second,  # [T, SECOND]; anything where SECOND is 0
    real_rows,  # [1] i32: rows behind it are left alone
    token_stride,
    first_stride,
    second_stride,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK: tl.constexpr,
    FP8: tl.constexpr,
    FNUZ: tl.constexpr,
):
    """One row's parts side by side at its slot."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    column = tl.arange(0, BLOCK)
    target = cache + tl.load(slots + row).to(tl.int64) * token_stride + column
    value = tl.load(first + row * first_stride + column, mask=column < FIRST, other=0.0)
    if SECOND > 0:
        inside = (column >= FIRST) & (column < FIRST + SECOND)
        at = second + row * second_stride + column - FIRST
        rest = tl.load(at, mask=inside, other=0.0)
        value = tl.where(inside, rest.to(tl.float32), value.to(tl.float32))
    stored = fp8_bits(value.to(tl.float32), FNUZ) if FP8 else value.to(cache.dtype.element_ty)
    tl.store(target, stored, mask=column < FIRST + SECOND)
