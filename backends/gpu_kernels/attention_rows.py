"""Triton kernels behind attention's joined products: what is cached of a row, and its queries.

A joined product leaves [splits, T, N] planes; the sum of all is what the products give, rounded to
bf16, and so is all that follows. Rows behind `real_rows` ([1] i32 on the device) are left alone.
Know no target.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.fp8_terms import two_terms
from lostwax.backends.gpu_kernels.hadamard import rotated, store_rotated
from lostwax.backends.gpu_kernels.joined_rows import summed
from lostwax.backends.gpu_kernels.norm_quantise import rms_normed
from lostwax.backends.gpu_kernels.plain_product import plain_product
from lostwax.backends.gpu_kernels.rope import partner_of, turned
from lostwax.backends.gpu_kernels.rounding import fp8_bits, quantised, rounded
from lostwax.backends.gpu_kernels.scaled_cache import turned_key, write_rest, write_scaled


@triton.jit
def _plain(value, kind: tl.constexpr, FP8: tl.constexpr, FNUZ: tl.constexpr):
    """f32 numbers that bf16 holds, as a cache of plain elements stores them; with FP8 as bits."""
    if FP8:
        return fp8_bits(value, FNUZ)
    else:
        return value.to(kind)


@triton.jit
def _write_query(
    of_row, plane, row, num_rows, weight, out, scales, out_stride, scales_stride, eps,
    Q: tl.constexpr, BLOCK: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr,
    POWER_OF_TWO: tl.constexpr, FNUZ: tl.constexpr, SPLITS: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
):  # fmt: skip
    """rms_norm(q) * weight of a row: in bf16, with QUANTISED 1 so, with 2 as two terms of fp8."""
    group = tl.arange(0, GROUPS)
    column = group[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = column < Q
    value = summed(of_row + column, plane, inside, SPLITS, ROUND_FIRST)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    y = rms_normed(value, w, eps, Q, 1)
    target = out + row.to(tl.int64) * out_stride + column
    of_scale = scales + row.to(tl.int64) * scales_stride + group
    if QUANTISED == 1:
        codes, scale = quantised(y, POWER_OF_TWO, FNUZ)
        tl.store(target, codes, mask=inside)
        tl.store(of_scale, scale, mask=group * BLOCK < Q)
    elif QUANTISED == 2:
        high, low, scale = two_terms(y, out.dtype.element_ty, FNUZ, ROUND_FIRST)
        tl.store(target, high, mask=inside)
        tl.store(target + tl.cast(num_rows, tl.int64) * out_stride, low, mask=inside)
        tl.store(of_scale, scale, mask=group * BLOCK < Q)
    else:
        tl.store(target, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _write_latent(
    of_row, plane, slot, weight, cache, cosines, sines, stride, eps, WIDTH: tl.constexpr,
    DIM: tl.constexpr, INTERLEAVED: tl.constexpr, BLOCK: tl.constexpr, GROUPS: tl.constexpr,
    BLOCK_REST: tl.constexpr, SCALED: tl.constexpr, FP8: tl.constexpr, POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr, PAGE_TOKENS: tl.constexpr, PAGE_BYTES: tl.constexpr,
    VALUES_STRIDE: tl.constexpr, SCALES_AT: tl.constexpr, SCALES_STRIDE: tl.constexpr,
    REST_AT: tl.constexpr, SPLITS: tl.constexpr, ROUND_FIRST: tl.constexpr,
):  # fmt: skip
    """rms_norm(latent) * weight and rope(k_pe), side by side at the slot."""
    group = tl.arange(0, GROUPS)
    column = group[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = column < WIDTH
    value = summed(of_row + column, plane, inside, SPLITS, ROUND_FIRST)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    y = rms_normed(value, w, eps, WIDTH, 1)
    rest = tl.arange(0, BLOCK_REST)
    in_rest = rest < DIM
    partner = partner_of(rest, 0, DIM, INTERLEAVED)
    own = summed(of_row + WIDTH + rest, plane, in_rest, SPLITS, ROUND_FIRST)
    other = summed(of_row + WIDTH + partner, plane, in_rest, SPLITS, ROUND_FIRST)
    k_pe = rounded(turned(own, other, cosines, sines, rest, 0, DIM), 1)
    if SCALED:
        codes, scale = quantised(y, POWER_OF_TWO, FNUZ)
        write_scaled(
            cache, slot, codes, scale, WIDTH, BLOCK, GROUPS, PAGE_TOKENS, PAGE_BYTES,
            VALUES_STRIDE, SCALES_AT, SCALES_STRIDE,
        )  # fmt: skip
        write_rest(cache, slot, k_pe, rest, DIM, PAGE_TOKENS, PAGE_BYTES, VALUES_STRIDE, REST_AT)
    else:
        at = cache + slot.to(tl.int64) * stride
        kind: tl.constexpr = cache.dtype.element_ty
        tl.store(at + column, _plain(y, kind, FP8, FNUZ), mask=inside)
        tl.store(at + WIDTH + rest, _plain(k_pe, kind, FP8, FNUZ), mask=in_rest)


@triton.jit
def _write_key(
    of_row, plane, slot, weight, bias, cache, cosines, sines, stride, eps, scale,
    WIDTH: tl.constexpr, LEVELS: tl.constexpr, OFFSET: tl.constexpr, DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr, BLOCK: tl.constexpr, SCALED: tl.constexpr,
    POWER_OF_TWO: tl.constexpr, FNUZ: tl.constexpr, PAGE_TOKENS: tl.constexpr,
    PAGE_BYTES: tl.constexpr, VALUES_STRIDE: tl.constexpr, SCALES_AT: tl.constexpr,
    SCALES_STRIDE: tl.constexpr, SPLITS: tl.constexpr, ROUND_FIRST: tl.constexpr,
):  # fmt: skip
    """rope(layer_norm(k)) at the slot; SCALED: times H * scale, quantised."""
    column = tl.arange(0, WIDTH)[None, :]
    inside = column < WIDTH
    partner = partner_of(column, OFFSET, DIM, INTERLEAVED)
    own = summed(of_row + column, plane, inside, SPLITS, ROUND_FIRST)
    other = summed(of_row + partner, plane, inside, SPLITS, ROUND_FIRST)
    y = turned_key(
        own, other, weight, bias, cosines, sines, column, partner, eps, WIDTH, OFFSET, DIM, 1
    )
    if SCALED:
        z = rounded(rotated(y, scale, 1, WIDTH, LEVELS), 1)
        BLOCKS: tl.constexpr = WIDTH // BLOCK
        codes, of_block = quantised(tl.reshape(z, (BLOCKS, BLOCK)), POWER_OF_TWO, FNUZ)
        write_scaled(
            cache, slot, codes, of_block, WIDTH, BLOCK, BLOCKS, PAGE_TOKENS, PAGE_BYTES,
            VALUES_STRIDE, SCALES_AT, SCALES_STRIDE,
        )  # fmt: skip
    else:
        tl.store(cache + slot.to(tl.int64) * stride + column, y.to(cache.dtype.element_ty))


@triton.jit
def cached_rows(
    joined,  # [SPLITS, T, Q + K + LATENT + ROPE]
    q_weight,  # [Q]
    q_out,  # [T, Q] bf16, with Q_SCALED 1 u8, with 2 [2 * T, Q] fp8: two terms
    q_scales,  # [T, ceil(Q / BLOCK)] f32 with Q_SCALED; else anything
    latent_weight,  # [LATENT]
    latent_cache,  # u8 with LATENT_SCALED or LATENT_FP8
    latent_table,  # [2, T, ROPE] f32: cosines, signed sines
    key_weight,  # [K]
    key_bias,  # [K]
    key_cache,  # u8 with KEY_SCALED
    key_table,  # [2, T, KEY_DIM] f32
    slots,  # [T] i32
    x,  # [T, WIDTH] bf16, where HEADS; else anything, as the four below
    heads_weight,  # [HEADS, WIDTH] bf16
    heads_out,  # [T, HEADS] f32
    partial,  # of `plain_product`
    arrived,
    real_rows,
    num_rows,
    q_stride,
    q_scales_stride,
    latent_stride,  # of a token, where plain
    key_stride,
    x_stride,
    heads_stride,
    q_eps,
    latent_eps,
    key_eps,
    key_scale,
    Q: tl.constexpr,
    K: tl.constexpr,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    BLOCK: tl.constexpr,
    Q_GROUPS: tl.constexpr,
    Q_SCALED: tl.constexpr,
    Q_POWER_OF_TWO: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    LATENT_GROUPS: tl.constexpr,
    BLOCK_ROPE: tl.constexpr,
    LATENT_SCALED: tl.constexpr,
    LATENT_FP8: tl.constexpr,
    LATENT_POWER_OF_TWO: tl.constexpr,
    LATENT_REST_AT: tl.constexpr,
    KEY_LEVELS: tl.constexpr,
    KEY_OFFSET: tl.constexpr,
    KEY_DIM: tl.constexpr,
    KEY_INTERLEAVED: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    KEY_SCALED: tl.constexpr,
    KEY_POWER_OF_TWO: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    HEADS_SPLITS: tl.constexpr,
    HEADS_BLOCK_ROWS: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    FNUZ: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
    LATENT_PAGE_TOKENS: tl.constexpr,
    LATENT_PAGE_BYTES: tl.constexpr,
    LATENT_VALUES_STRIDE: tl.constexpr,
    LATENT_SCALES_AT: tl.constexpr,
    LATENT_SCALES_STRIDE: tl.constexpr,
    KEY_PAGE_TOKENS: tl.constexpr,
    KEY_PAGE_BYTES: tl.constexpr,
    KEY_VALUES_STRIDE: tl.constexpr,
    KEY_SCALES_AT: tl.constexpr,
    KEY_SCALES_STRIDE: tl.constexpr,
    SETTLE: tl.constexpr = 0,
):
    """One part of a row: the query before its projection, the latent row, or the index key.

    With HEADS programs behind these make x heads_weight^T, what each of the indexer's heads counts.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    real = tl.load(real_rows)
    if (part < 3) & (row >= real):
        return
    width: tl.constexpr = Q + K + LATENT + ROPE
    plane = tl.cast(num_rows, tl.int64) * width
    of_row = joined + row * width
    if part == 0:
        _write_query(
            of_row, plane, row, num_rows, q_weight, q_out, q_scales, q_stride, q_scales_stride,
            q_eps, Q, BLOCK, Q_GROUPS, Q_SCALED, Q_POWER_OF_TWO, FNUZ, SPLITS,
            ROUND_FIRST,
        )  # fmt: skip
    elif part == 1:
        slot = tl.load(slots + row).to(tl.int64)
        _write_latent(
            of_row + (Q + K), plane, slot, latent_weight, latent_cache, latent_table + row * ROPE,
            latent_table + (num_rows + row) * ROPE, latent_stride, latent_eps, LATENT, ROPE,
            INTERLEAVED, BLOCK, LATENT_GROUPS, BLOCK_ROPE, LATENT_SCALED, LATENT_FP8,
            LATENT_POWER_OF_TWO, FNUZ, LATENT_PAGE_TOKENS, LATENT_PAGE_BYTES, LATENT_VALUES_STRIDE,
            LATENT_SCALES_AT, LATENT_SCALES_STRIDE, LATENT_REST_AT, SPLITS, ROUND_FIRST,
        )  # fmt: skip
    elif part == 2:
        slot = tl.load(slots + row).to(tl.int64)
        _write_key(
            of_row + Q, plane, slot, key_weight, key_bias, key_cache, key_table + row * KEY_DIM,
            key_table + (num_rows + row) * KEY_DIM, key_stride, key_eps, key_scale, K, KEY_LEVELS,
            KEY_OFFSET, KEY_DIM, KEY_INTERLEAVED, KEY_BLOCK, KEY_SCALED, KEY_POWER_OF_TWO,
            FNUZ, KEY_PAGE_TOKENS, KEY_PAGE_BYTES, KEY_VALUES_STRIDE, KEY_SCALES_AT,
            KEY_SCALES_STRIDE, SPLITS, ROUND_FIRST,
        )  # fmt: skip
    elif HEADS > 0:
        plain_product(
            (part - 3) * num_rows + tl.program_id(0), x, heads_weight, heads_out, partial, arrived,
            real, num_rows, x_stride, heads_stride, HEADS, WIDTH, HEADS_SPLITS, HEADS_BLOCK_ROWS,
            HEADS_BLOCK, BLOCK, WIDE_DOT, SETTLE,
        )  # fmt: skip


@triton.jit
def _write_queries(
    of_row, plane, head, q, head_stride, cosines, sines, HEADS: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr, OFFSET: tl.constexpr, DIM: tl.constexpr, INTERLEAVED: tl.constexpr,
    SPLITS: tl.constexpr, ROUND_FIRST: tl.constexpr,
):  # fmt: skip
    """rope(q) of the heads [B, 1] of a row."""
    column = tl.arange(0, BLOCK_WIDTH)[None, :]
    inside = (head < HEADS) & (column < WIDTH)
    base = of_row + head * WIDTH
    partner = partner_of(column, OFFSET, DIM, INTERLEAVED)
    own = summed(base + column, plane, inside, SPLITS, ROUND_FIRST)
    other = summed(base + partner, plane, inside, SPLITS, ROUND_FIRST)
    y = rounded(turned(own, other, cosines, sines, column, OFFSET, DIM), 1)
    tl.store(q + head.to(tl.int64) * head_stride + column, y.to(q.dtype.element_ty), mask=inside)


@triton.jit
def _write_index_queries(
    of_row, plane, row, head, index_q, scales, cosines, sines, row_stride, head_stride,
    scales_row_stride, scales_head_stride, scale, HEADS: tl.constexpr, BLOCK_HEADS: tl.constexpr,
    WIDTH: tl.constexpr, OFFSET: tl.constexpr, DIM: tl.constexpr, INTERLEAVED: tl.constexpr,
    SCALED: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr, POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr, SPLITS: tl.constexpr, ROUND_FIRST: tl.constexpr,
):  # fmt: skip
    """rope(index_q) of the heads [BLOCK_HEADS] of a row; SCALED: times H * scale, quantised."""
    # whole, so that the table is loaded in the layout of the values, whose rows lie in one warp
    column = tl.broadcast_to(tl.arange(0, WIDTH)[None, :], (BLOCK_HEADS, WIDTH))
    inside = (head < HEADS)[:, None] & (column < WIDTH)
    base = of_row + head[:, None] * WIDTH
    partner = partner_of(column, OFFSET, DIM, INTERLEAVED)
    own = summed(base + column, plane, inside, SPLITS, ROUND_FIRST)
    other = summed(base + partner, plane, inside, SPLITS, ROUND_FIRST)
    y = rounded(turned(own, other, cosines, sines, column, OFFSET, DIM), 1)
    if SCALED:
        store_rotated(
            y, row, head, column, index_q, scales, row_stride, head_stride, scales_row_stride,
            scales_head_stride, scale, HEADS, BLOCK_HEADS, WIDTH, LEVELS, BLOCK, 1, POWER_OF_TWO,
            FNUZ,
        )  # fmt: skip
    else:
        at = row.to(tl.int64) * row_stride + head[:, None].to(tl.int64) * head_stride + column
        tl.store(index_q + at, y.to(index_q.dtype.element_ty), mask=inside)


@triton.jit
def query_rows(
    joined,  # [SPLITS, T, HEADS * WIDTH + INDEX_HEADS * INDEX_WIDTH]
    table,  # [2, T, DIM] f32: cosines, signed sines
    q,  # [T, HEADS, WIDTH]
    index_table,  # [2, T, INDEX_DIM] f32
    index_q,  # [T, INDEX_HEADS, INDEX_WIDTH], u8 with SCALED
    index_scales,  # [T, INDEX_HEADS, blocks] f32 with SCALED; else anything
    real_rows,
    num_rows,
    q_row_stride,
    q_head_stride,
    index_q_row_stride,
    index_q_head_stride,
    index_scales_row_stride,
    index_scales_head_stride,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    INDEX_HEADS: tl.constexpr,
    INDEX_WIDTH: tl.constexpr,
    INDEX_BLOCK_HEADS: tl.constexpr,
    SCALED: tl.constexpr,
    LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
    SPLITS: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
    OFFSET: tl.constexpr,
    DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    INDEX_OFFSET: tl.constexpr,
    INDEX_DIM: tl.constexpr,
    INDEX_INTERLEAVED: tl.constexpr,
):
    """Some heads of a row: rope(q), or rope(index_q), SCALED: times H * scale, quantised."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    BLOCKS: tl.constexpr = (HEADS + BLOCK_HEADS - 1) // BLOCK_HEADS
    total: tl.constexpr = HEADS * WIDTH + INDEX_HEADS * INDEX_WIDTH
    plane = tl.cast(num_rows, tl.int64) * total
    of_row = joined + row * total
    block = tl.program_id(1)
    if block < BLOCKS:
        head = (block * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)).to(tl.int64)
        _write_queries(
            of_row, plane, head[:, None], q + row * q_row_stride, q_head_stride, table + row * DIM,
            table + (num_rows + row) * DIM, HEADS, WIDTH, BLOCK_WIDTH, OFFSET, DIM, INTERLEAVED,
            SPLITS, ROUND_FIRST,
        )  # fmt: skip
    else:
        first = (block - BLOCKS) * INDEX_BLOCK_HEADS
        _write_index_queries(
            of_row + HEADS * WIDTH, plane, row,
            (first + tl.arange(0, INDEX_BLOCK_HEADS)).to(tl.int64), index_q, index_scales,
            index_table + row * INDEX_DIM, index_table + (num_rows + row) * INDEX_DIM,
            index_q_row_stride, index_q_head_stride, index_scales_row_stride,
            index_scales_head_stride, scale, INDEX_HEADS, INDEX_BLOCK_HEADS, INDEX_WIDTH,
            INDEX_OFFSET, INDEX_DIM, INDEX_INTERLEAVED, SCALED, LEVELS, BLOCK, POWER_OF_TWO,
            FNUZ, SPLITS, ROUND_FIRST,
        )  # fmt: skip
