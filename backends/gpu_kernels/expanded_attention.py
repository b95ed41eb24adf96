"""Triton kernels of attention in the expanded form: plain MHA over whole contexts. Know no target.

Where contexts lie in the workspace is listed once a step; their rows are gathered in bf16 once a
layer, expanded by `plain_tiles`, and attended to by tiles of a request's rows and one head.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.conversions import to_float
from lostwax.backends.gpu_kernels.sparse_attention import load_keys, request_of


@triton.jit
def list_contexts(
    q_starts,  # [reqs + 1]
    kv_lens,  # [reqs]
    starts,  # [2, reqs + 1] i32: rows of all contexts before one, and tiles of rows; last: of all
    reqs,
    TILE_ROWS: tl.constexpr,
    BLOCK_REQS: tl.constexpr,
):
    """One program."""
    rows_before = 0
    tiles_before = 0
    for start in range(0, reqs, BLOCK_REQS):
        b = start + tl.arange(0, BLOCK_REQS)
        live = b < reqs
        rows = tl.load(kv_lens + b, mask=live, other=0)
        first = tl.load(q_starts + b, mask=live, other=0)
        new = tl.load(q_starts + b + 1, mask=live, other=0) - first
        tiles = (new + TILE_ROWS - 1) // TILE_ROWS
        tl.store(starts + b, rows_before + tl.cumsum(rows, axis=0) - rows, mask=live)
        at = tiles_before + tl.cumsum(tiles, axis=0) - tiles
        tl.store(starts + reqs + 1 + b, at, mask=live)
        rows_before += tl.sum(rows, axis=0)
        tiles_before += tl.sum(tiles, axis=0)
    tl.store(starts + reqs, rows_before)
    tl.store(starts + 2 * reqs + 1, tiles_before)


@triton.jit
def gather_contexts(
    cache,  # [pages, PAGE, LATENT + ROPE]; with BYTES u8, as in `load_keys`
    starts,  # [2, reqs + 1] i32, of `list_contexts`
    page_table,  # [reqs, pages of one request]
    latents,  # [rows, LATENT]
    rope_keys,  # [rows, ROPE]
    reqs,
    rows,
    page_stride,
    token_stride,
    page_table_stride,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_REQS: tl.constexpr,
    BYTES: tl.constexpr,
    SCALE_BLOCK: tl.constexpr,
    FNUZ: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """Some rows of the contexts behind one another; programs behind the last leave at once."""
    total = tl.minimum(tl.load(starts + reqs), rows)
    first = tl.program_id(0) * BLOCK_KEYS
    if first >= total:
        return
    row = first + tl.arange(0, BLOCK_KEYS)
    live = row < total
    request = tl.zeros((BLOCK_KEYS,), tl.int32)
    for start in range(0, reqs, BLOCK_REQS):
        b = start + tl.arange(0, BLOCK_REQS)
        ends = tl.load(starts + 1 + b, mask=b < reqs, other=2147483647)
        request += tl.sum((ends[None, :] <= row[:, None]).to(tl.int32), axis=1)
    request = tl.minimum(request, reqs - 1)
    position = row - tl.load(starts + request, mask=live, other=0)
    entry = request.to(tl.int64) * page_table_stride + position // PAGE
    page = tl.load(page_table + entry, mask=live, other=0)
    base = page.to(tl.int64) * page_stride + (position % PAGE) * token_stride
    latent, rope = tl.arange(0, LATENT), tl.arange(0, ROPE)
    c, k_rope = load_keys(
        cache, base, live, latent, rope, tl.bfloat16, LATENT, ROPE, BLOCK_KEYS, LATENT, BYTES,
        SCALE_BLOCK, FNUZ, WIDE_DOT,
    )  # fmt: skip
    kind: tl.constexpr = latents.dtype.element_ty
    at = row.to(tl.int64)[:, None]
    tl.store(
        latents + at * LATENT + latent[None, :], to_float(c, kind, ROUND_FIRST), mask=live[:, None]
    )
    tl.store(
        rope_keys + at * ROPE + rope[None, :], to_float(k_rope, kind, ROUND_FIRST),
        mask=live[:, None],
    )  # fmt: skip


@triton.jit
def mark_selected(
    selection,  # [T, KEYS] i32: positions of the row's request, -1 for none
    marks,  # [T, columns] u8
    real_rows,  # [1] i32: rows behind it are left alone
    columns,
    selection_stride,
    VALUE: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Marks become 0 everywhere, or VALUE at what a row selected: two launches, one after the
    other, as no barrier of a program orders its stores on every target."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if VALUE:
        at = tl.load(selection + row * selection_stride + at, mask=at < KEYS, other=-1)
    inside = (at >= 0) & (at < columns)
    tl.store(marks + row * columns + at, tl.full((BLOCK,), VALUE, tl.uint8), mask=inside)


@triton.jit
def attend_expanded(
    q_nope,  # [T, H, NOPE], any strides
    q_rope,  # [T, H, ROPE], any strides
    expanded,  # [rows, heads, NOPE + VALUE]: keys, then values
    rope_keys,  # [rows, ROPE]
    marks,  # [T, columns] u8: 0 where a position counts for nothing, if MASKED
    positions,  # [T]
    q_starts,  # [reqs + 1]
    starts,  # [2, reqs + 1] i32, of `list_contexts`
    out,  # [T, heads * VALUE]
    reqs,
    heads,
    columns,
    nope_row_stride,
    nope_head_stride,
    rope_row_stride,
    rope_head_stride,
    out_stride,
    scale,
    NOPE: tl.constexpr,
    ROPE: tl.constexpr,
    VALUE: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_REQS: tl.constexpr,
    MASKED: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):
    """A tile of a request's rows and one head. The last tiles, which see most keys, come first.

    A row without any key gives zeros. WIDE_DOT takes the products in f32.
    """
    tile = tl.load(starts + 2 * reqs + 1) - 1 - tl.program_id(0)
    if tile < 0:
        return
    head = tl.program_id(1).to(tl.int64)
    request = request_of(starts + reqs + 1, tile, reqs, BLOCK_REQS)
    first = tl.load(q_starts + request)
    first += (tile - tl.load(starts + reqs + 1 + request)) * TILE_ROWS
    row = (first + tl.arange(0, TILE_ROWS)).to(tl.int64)
    in_rows = row < tl.load(q_starts + request + 1)
    context = tl.load(starts + request).to(tl.int64)
    position = tl.load(positions + row, mask=in_rows, other=-1)

    nope, rope, value = tl.arange(0, NOPE), tl.arange(0, ROPE), tl.arange(0, VALUE)
    q_at = row[:, None] * nope_row_stride + head * nope_head_stride + nope[None, :]
    q = tl.load(q_nope + q_at, mask=in_rows[:, None], other=0.0)
    r_at = row[:, None] * rope_row_stride + head * rope_head_stride + rope[None, :]
    r = tl.load(q_rope + r_at, mask=in_rows[:, None], other=0.0)
    if WIDE_DOT:
        q, r = q.to(tl.float32), r.to(tl.float32)

    running_max = tl.full((TILE_ROWS,), float("-inf"), tl.float32)
    running_sum = tl.zeros((TILE_ROWS,), tl.float32)
    total = tl.zeros((TILE_ROWS, VALUE), tl.float32)
    reach = tl.max(position, axis=0) + 1
    for start in range(0, reach, BLOCK_KEYS):
        key = start + tl.arange(0, BLOCK_KEYS)
        live = (key < reach)[:, None]  # what lies behind the context may be NaN
        at = (context + key)[:, None]
        of_head = expanded + (at * heads + head) * (NOPE + VALUE)
        k = tl.load(of_head + nope[None, :], mask=live, other=0.0)
        k_rope = tl.load(rope_keys + at * ROPE + rope[None, :], mask=live, other=0.0)
        v = tl.load(of_head + NOPE + value[None, :], mask=live, other=0.0)
        if WIDE_DOT:
            k, k_rope, v = k.to(tl.float32), k_rope.to(tl.float32), v.to(tl.float32)
        score = tl.dot(q, tl.trans(k), input_precision="ieee")
        score = tl.dot(r, tl.trans(k_rope), acc=score, input_precision="ieee")
        seen = key[None, :] <= position[:, None]
        if MASKED:
            mark_at = row[:, None] * columns + key[None, :]
            seen &= tl.load(marks + mark_at, mask=seen, other=0) != 0
        score = tl.where(seen, score * scale, float("-inf"))
        new_max = tl.maximum(running_max, tl.max(score, axis=1))
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)  # rows without a key so far
        weight = tl.exp(score - shift[:, None])
        decay = tl.exp(running_max - shift)
        running_sum = running_sum * decay + tl.sum(weight, axis=1)
        total = tl.dot(weight.to(v.dtype), v, acc=total * decay[:, None], input_precision="ieee")
        running_max = new_max

    result = tl.where((running_sum > 0.0)[:, None], total / running_sum[:, None], 0.0)
    target = out + row[:, None] * out_stride + head * VALUE + value[None, :]
    kind: tl.constexpr = out.dtype.element_ty
    tl.store(target, to_float(result, kind, ROUND_FIRST), mask=in_rows[:, None])
