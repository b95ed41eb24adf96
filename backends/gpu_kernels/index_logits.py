"""Triton kernel of the indexer's logits over paged keys, plain or fp8. Knows no target."""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.fp8_loads import load_fp8


@triton.jit
def _tile_of(q_starts, number, low, high, reqs, ROWS: tl.constexpr, BLOCK_REQS: tl.constexpr):
    """The request of a tile of rows, its first row and the end of the request's rows.

    Tiles are counted request by request over rows low .. high-1; a number behind the last of them
    gives request -1.
    """
    request, first, end, before = -1, 0, 0, 0
    for start in range(0, reqs, BLOCK_REQS):
        b = start + tl.arange(0, BLOCK_REQS)
        begins = tl.maximum(tl.load(q_starts + b, mask=b < reqs, other=0), low)
        ends = tl.minimum(tl.load(q_starts + 1 + b, mask=b < reqs, other=0), high)
        tiles = (tl.maximum(ends - begins, 0) + ROWS - 1) // ROWS
        upto = before + tl.cumsum(tiles, axis=0)
        is_here = (number < upto) & (number >= upto - tiles)
        request = tl.maximum(request, tl.max(tl.where(is_here, b, -1), axis=0))
        own = begins + (number - upto + tiles) * ROWS
        first = tl.maximum(first, tl.max(tl.where(is_here, own, 0), axis=0))
        end = tl.maximum(end, tl.max(tl.where(is_here, ends, 0), axis=0))
        before += tl.sum(tiles, axis=0)
    return request, first, end


@triton.jit
def index_logits(
    q,  # [T, HEADS, DIM], any strides but the last
    q_scale,  # [T, HEADS] f32 where SCALED; else anything
    weights,  # [T, HEADS] f32
    cache,  # pages of PAGE rows of DIM; bytes where SCALED, a row's scale behind it,
    # or, where PAGED, all scales behind all rows of the page
    positions,  # [T] i32
    q_starts,  # [reqs + 1] i32
    page_table,  # [reqs, pages of one request] i32
    out,  # [rows from first_row on, >= columns] f32
    real_rows,  # [1] i32: rows behind it are left alone
    first_row,
    rows,
    reqs,
    columns,
    q_row_stride,
    q_head_stride,
    q_scale_stride,
    weights_stride,
    page_stride,
    token_stride,
    page_table_stride,
    out_stride,
    scale,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    SCALED: tl.constexpr,
    PAGED: tl.constexpr,
    SCALES_AT: tl.constexpr,  # bytes of a page before its scales, where PAGED
    FNUZ: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_REQS: tl.constexpr,
    WIDE_DOT: tl.constexpr,
):
    """One block of keys of one request for a tile of its rows, which lie in first_row .. + rows.

    Keys are read once a tile. WIDE_DOT takes the dots in f32.
    """
    high = tl.minimum(first_row + rows, tl.load(real_rows))
    request, first, end = _tile_of(
        q_starts, tl.program_id(0), first_row, high, reqs, ROWS, BLOCK_REQS
    )
    if request < 0:
        return
    last = tl.minimum(first + ROWS, end)
    own = first + tl.arange(0, ROWS)
    position = tl.load(positions + own, mask=own < last, other=-1)
    column = tl.program_id(1) * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    in_table = column < columns
    if tl.program_id(1) * BLOCK_KEYS > tl.max(position, axis=0):
        for row in range(first, last):
            at = out + tl.cast(row - first_row, tl.int64) * out_stride + column
            tl.store(at, tl.full((BLOCK_KEYS,), float("-inf"), tl.float32), mask=in_table)
        return
    head = tl.arange(0, BLOCK_HEADS)
    dim = tl.arange(0, BLOCK_DIM)
    in_head = head < HEADS
    in_dim = dim < DIM
    is_read = column <= tl.max(position, axis=0)
    table = page_table + request.to(tl.int64) * page_table_stride
    page = tl.load(table + column // PAGE, mask=is_read, other=0).to(tl.int64) * page_stride
    token = column % PAGE
    key_at = (page + token * token_stride)[:, None] + dim[None, :]
    inside = is_read[:, None] & in_dim[None, :]
    factor = tl.full((BLOCK_KEYS,), scale, tl.float32)
    if SCALED:
        scale_at = page + SCALES_AT + 4 * token if PAGED else page + token * token_stride + DIM
        scales = cache.to(tl.pointer_type(tl.float32), bitcast=True)
        factor *= tl.load(scales + scale_at // 4, mask=is_read, other=0.0)
        k = load_fp8(cache, key_at, inside, FNUZ, WIDE_DOT)
    else:
        k = tl.load(cache + key_at, mask=inside, other=0.0)
        if WIDE_DOT:
            k = k.to(tl.float32)
    k = tl.trans(k)
    for row in range(first, last):
        wide = tl.cast(row, tl.int64)
        q_at = wide * q_row_stride + head[:, None] * q_head_stride + dim[None, :]
        own_q = tl.load(q + q_at, mask=in_head[:, None] & in_dim[None, :], other=0.0)
        if WIDE_DOT:
            own_q = own_q.to(tl.float32)
        weight = tl.load(weights + wide * weights_stride + head, mask=in_head, other=0.0)
        if SCALED:
            weight *= tl.load(q_scale + wide * q_scale_stride + head, mask=in_head, other=0.0)
        score = tl.dot(own_q, k, input_precision="ieee")
        score = tl.maximum(score, 0.0, propagate_nan=tl.PropagateNan.ALL)
        logit = tl.sum(score * weight[:, None], axis=0) * factor
        is_visible = column <= tl.load(positions + row)
        at = out + tl.cast(row - first_row, tl.int64) * out_stride + column
        tl.store(at, tl.where(is_visible, logit, float("-inf")), mask=in_table)
