"""A Triton kernel that turns selected positions into places of the paged cache. Knows no target."""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.sparse_attention import request_of


@triton.jit
def selected_slots(
    selection,  # [T, KEYS] i32: positions of the row's request, -1 for none
    q_starts,  # [reqs + 1] i32
    page_table,  # [reqs, pages of one request] i32
    slots,  # [T, KEYS] i32: page * PAGE + token, -1 for none
    real_rows,  # [1] i32: rows behind it select nothing, whatever stands there
    reqs,
    selection_stride,
    table_stride,
    KEYS: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_REQS: tl.constexpr,
):
    """Every row of `slots` is written; one row and block of keys a program."""
    row = tl.program_id(0).to(tl.int64)
    key = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = key < KEYS
    is_real = row < tl.load(real_rows)
    chosen = tl.load(selection + row * selection_stride + key, mask=inside & is_real, other=-1)
    request = request_of(q_starts, row, reqs, BLOCK_REQS).to(tl.int64)
    of_request = page_table + request * table_stride
    page = tl.load(of_request + chosen // PAGE, mask=chosen >= 0, other=0)
    slot = tl.where(chosen >= 0, page * PAGE + chosen % PAGE, -1)
    tl.store(slots + row * KEYS + key, slot, mask=inside)
