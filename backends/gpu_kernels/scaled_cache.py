"""Triton kernels that write rows to a cache of bytes: fp8 values, their scales, bf16. Know no
target.

The value bytes of the token at `place` of a page lie VALUES_STRIDE behind those of the token
before, its f32 scales SCALES_STRIDE; the first token's scales lie SCALES_AT behind the page's
start, and its bf16 part REST_AT. Rows behind `real_rows` ([1] i32 on the device) are left alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.hadamard import rotated
from lostwax.backends.gpu_kernels.norm_quantise import rms_normed
from lostwax.backends.gpu_kernels.rope import partner_of, turned
from lostwax.backends.gpu_kernels.rounding import quantised, rounded


@triton.jit
def _address(
    slot, START: tl.constexpr, STRIDE: tl.constexpr, PAGE_TOKENS: tl.constexpr,
    PAGE_BYTES: tl.constexpr,
):  # fmt: skip
    """Bytes from the cache's first one to a part of a token, for a slot of 64 bits."""
    return slot // PAGE_TOKENS * PAGE_BYTES + START + slot % PAGE_TOKENS * STRIDE


@triton.jit
def write_scaled(
    cache, slot, codes, scales, WIDTH: tl.constexpr, BLOCK: tl.constexpr, GROUPS: tl.constexpr,
    PAGE_TOKENS: tl.constexpr, PAGE_BYTES: tl.constexpr, VALUES_STRIDE: tl.constexpr,
    SCALES_AT: tl.constexpr, SCALES_STRIDE: tl.constexpr,
):  # fmt: skip
    """The values [GROUPS, BLOCK] of one token, as bits, and their f32 scales [GROUPS]."""
    values_at = _address(slot, 0, VALUES_STRIDE, PAGE_TOKENS, PAGE_BYTES)
    scales_at = _address(slot, SCALES_AT, SCALES_STRIDE, PAGE_TOKENS, PAGE_BYTES)
    group = tl.arange(0, GROUPS)
    column = group[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tl.store(cache + values_at + column, codes, mask=column < WIDTH)
    at = (cache + scales_at).to(tl.pointer_type(tl.float32), bitcast=True)
    tl.store(at + group, scales, mask=group * BLOCK < WIDTH)


@triton.jit
def write_rest(
    cache, slot, rest, column, WIDTH: tl.constexpr, PAGE_TOKENS: tl.constexpr,
    PAGE_BYTES: tl.constexpr, VALUES_STRIDE: tl.constexpr, REST_AT: tl.constexpr,
):  # fmt: skip
    """The bf16 part of one token, of f32 `rest` at `column`, rounded."""
    rest_at = _address(slot, REST_AT, VALUES_STRIDE, PAGE_TOKENS, PAGE_BYTES)
    at = (cache + rest_at).to(tl.pointer_type(tl.bfloat16), bitcast=True)
    tl.store(at + column, rounded(rest, 1).to(tl.bfloat16), mask=column < WIDTH)


@triton.jit
def append_scaled(
    cache,  # u8
    slots,  # [T] i32
    values,  # [T, WIDTH] u8: bits of fp8
    scales,  # [T, SCALES] f32
    rest,  # [T, REST]; anything where REST is 0
    real_rows,
    values_stride,
    scales_stride,
    rest_stride,
    WIDTH: tl.constexpr,
    SCALES: tl.constexpr,
    REST: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_SCALES: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    PAGE_BYTES: tl.constexpr,
    VALUES_STRIDE: tl.constexpr,
    SCALES_AT: tl.constexpr,
    SCALES_STRIDE: tl.constexpr,
    REST_AT: tl.constexpr,
):
    """One row, quantised before."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    slot = tl.load(slots + row).to(tl.int64)
    values_at = _address(slot, 0, VALUES_STRIDE, PAGE_TOKENS, PAGE_BYTES)
    scales_at = _address(slot, SCALES_AT, SCALES_STRIDE, PAGE_TOKENS, PAGE_BYTES)
    column = tl.arange(0, BLOCK)
    value = tl.load(values + row * values_stride + column, mask=column < WIDTH)
    tl.store(cache + values_at + column, value, mask=column < WIDTH)
    block = tl.arange(0, BLOCK_SCALES)
    scale = tl.load(scales + row * scales_stride + block, mask=block < SCALES)
    at = (cache + scales_at).to(tl.pointer_type(tl.float32), bitcast=True)
    tl.store(at + block, scale, mask=block < SCALES)
    if REST > 0:
        column = tl.arange(0, BLOCK_REST)
        part = tl.load(rest + row * rest_stride + column, mask=column < REST, other=0.0)
        write_rest(
            cache, slot, part.to(tl.float32), column, REST, PAGE_TOKENS, PAGE_BYTES, VALUES_STRIDE,
            REST_AT,
        )  # fmt: skip


@triton.jit
def append_latent(
    cache,  # u8
    slots,  # [T] i32
    x,  # [T, WIDTH]
    weight,  # [WIDTH]
    k_pe,  # [T, DIM]
    table,  # [2, T, DIM] f32: cosines, signed sines
    real_rows,
    num_rows,
    x_stride,
    k_pe_stride,
    eps,
    WIDTH: tl.constexpr,
    DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    BF16: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    PAGE_BYTES: tl.constexpr,
    VALUES_STRIDE: tl.constexpr,
    SCALES_AT: tl.constexpr,
    SCALES_STRIDE: tl.constexpr,
    REST_AT: tl.constexpr,
):
    """One row: y = rms_norm(x) * weight, quantised, and rope(k_pe); both rounded to bf16 first with
    BF16.
    """
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    slot = tl.load(slots + row).to(tl.int64)
    group = tl.arange(0, GROUPS)
    column = group[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = column < WIDTH
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    codes, scale = quantised(rms_normed(value, w, eps, WIDTH, BF16), POWER_OF_TWO, FNUZ)
    write_scaled(
        cache, slot, codes, scale, WIDTH, BLOCK, GROUPS, PAGE_TOKENS, PAGE_BYTES, VALUES_STRIDE,
        SCALES_AT, SCALES_STRIDE,
    )  # fmt: skip
    column = tl.arange(0, BLOCK_REST)
    inside = column < DIM
    partner = partner_of(column, 0, DIM, INTERLEAVED)
    own = tl.load(k_pe + row * k_pe_stride + column, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(k_pe + row * k_pe_stride + partner, mask=inside, other=0.0).to(tl.float32)
    cosines = table + row * DIM
    sines = table + (num_rows + row) * DIM
    y = turned(own, other, cosines, sines, column, 0, DIM)
    write_rest(cache, slot, y, column, DIM, PAGE_TOKENS, PAGE_BYTES, VALUES_STRIDE, REST_AT)


@triton.jit
def turned_key(
    own, other, weight, bias, cosines, sines, column, partner, eps, WIDTH: tl.constexpr,
    OFFSET: tl.constexpr, DIM: tl.constexpr, BF16: tl.constexpr,
):  # fmt: skip
    """rope(layer_norm(x)) of f32 x [1, WIDTH], each rounded to bf16 with BF16: `own` lies at
    `column`, `other` at `partner`, and is normed anew, as it lies in another thread."""
    mean = tl.sum(tl.sum(own, axis=1), axis=0) / WIDTH
    centred = own - mean
    variance = tl.sum(tl.sum(centred * centred, axis=1), axis=0) / WIDTH
    inverse = tl.div_rn(1.0, tl.sqrt_rn(variance + eps))
    w = tl.load(weight + column).to(tl.float32)
    b = tl.load(bias + column).to(tl.float32)
    own = rounded(centred * inverse * w + b, BF16)
    w = tl.load(weight + partner).to(tl.float32)
    b = tl.load(bias + partner).to(tl.float32)
    other = rounded((other - mean) * inverse * w + b, BF16)
    return rounded(turned(own, other, cosines, sines, column, OFFSET, DIM), BF16)


@triton.jit
def append_index_key(
    cache,  # u8
    slots,  # [T] i32
    x,  # [T, WIDTH]
    weight,  # [WIDTH]
    bias,  # [WIDTH]
    table,  # [2, T, DIM] f32: cosines, signed sines
    real_rows,
    num_rows,
    x_stride,
    eps,
    scale,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    OFFSET: tl.constexpr,
    DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK: tl.constexpr,
    BF16: tl.constexpr,
    POWER_OF_TWO: tl.constexpr,
    FNUZ: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    PAGE_BYTES: tl.constexpr,
    VALUES_STRIDE: tl.constexpr,
    SCALES_AT: tl.constexpr,
    SCALES_STRIDE: tl.constexpr,
):
    """One row: rope(layer_norm(x)) H * scale, quantised; each step rounded to bf16 with BF16."""
    row = tl.program_id(0).to(tl.int64)
    if row >= tl.load(real_rows):
        return
    slot = tl.load(slots + row).to(tl.int64)
    column = tl.arange(0, WIDTH)[None, :]
    partner = partner_of(column, OFFSET, DIM, INTERLEAVED)
    value = tl.load(x + row * x_stride + column).to(tl.float32)
    other = tl.load(x + row * x_stride + partner).to(tl.float32)
    cosines = table + row * DIM
    sines = table + (num_rows + row) * DIM
    y = turned_key(
        value, other, weight, bias, cosines, sines, column, partner, eps, WIDTH, OFFSET, DIM, BF16
    )
    z = rounded(rotated(y, scale, 1, WIDTH, LEVELS), BF16)
    BLOCKS: tl.constexpr = WIDTH // BLOCK
    codes, scale_of = quantised(tl.reshape(z, (BLOCKS, BLOCK)), POWER_OF_TWO, FNUZ)
    write_scaled(
        cache, slot, codes, scale_of, WIDTH, BLOCK, BLOCKS, PAGE_TOKENS, PAGE_BYTES, VALUES_STRIDE,
        SCALES_AT, SCALES_STRIDE,
    )  # fmt: skip
