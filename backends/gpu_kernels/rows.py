"""Triton kernels that copy chosen rows. Know no target."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def take_rows(
    table, rows, out, real_rows, table_stride, out_stride, WIDTH, BLOCK: tl.constexpr
):  # fmt: skip
    """out[i] = table[rows[i]], zeros where rows[i] is negative; one row and block of columns.

    Rows behind `real_rows` ([1] i32 on the device) are left alone.
    """
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    chosen = tl.load(rows + row).to(tl.int64)
    value = tl.load(table + chosen * table_stride + column, mask=inside & (chosen >= 0), other=0.0)
    tl.store(out + row * out_stride + column, value, mask=inside)
