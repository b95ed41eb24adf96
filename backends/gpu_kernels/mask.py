"""Triton kernel of masks: the logits of the ids that a row may pick. Knows no target."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def mask_of(masks, mask_rows, row, WORDS: tl.constexpr):
    """Where the row's mask begins, and whether it has one."""
    own = tl.load(mask_rows + row)
    return masks + tl.maximum(own, 0).to(tl.int64) * WORDS, own >= 0


@triton.jit
def is_allowed(words, has_mask, index, WIDTH: tl.constexpr):
    """Whether the mask that begins at `words` allows ids, which is so of all without one.

    The bits of an id are read where it is below WIDTH; `index` has any shape.
    """
    word = tl.load(words + index // 32, mask=(index < WIDTH) & has_mask, other=-1)
    return ((word >> (index % 32)) & 1) == 1


@triton.jit
def allowed_logits(logits, words, has_mask, index, WIDTH: tl.constexpr):
    """A row's logits at some indexes, -inf for forbidden ids and behind the row's end."""
    x = tl.load(logits + index, mask=index < WIDTH, other=float("-inf"))
    return tl.where(is_allowed(words, has_mask, index, WIDTH), x, float("-inf"))


@triton.jit
def mask_logits(
    logits,  # [R, WIDTH] f32
    masks,  # [M, WORDS] i32
    mask_rows,  # [R] i32, -1: none
    out,  # [R, WIDTH] f32
    real_rows,  # [1] i32: rows behind it are left alone
    logits_stride,
    out_stride,
    WIDTH: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One part of one row: -inf for ids whose bit is 0."""
    row = tl.program_id(0).to(tl.int64)
    if row < tl.load(real_rows):
        index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(logits + row * logits_stride + index, mask=index < WIDTH)
        words, has_mask = mask_of(masks, mask_rows, row, WORDS)
        x = tl.where(is_allowed(words, has_mask, index, WIDTH), x, float("-inf"))
        tl.store(out + row * out_stride + index, x, mask=index < WIDTH)
