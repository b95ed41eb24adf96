"""Which values lie under one scale, as types. Knows no tensor and no op."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from lostwax.ir.contract.bounds import BlockExtent, Word

FP8_BLOCK = 128
"""Rows and columns of a block in DeepSeek's fp8 checkpoints, and columns under one scale of its
activations and cached rows. The only home of this number: everything else asks a type or this."""


class BlockScale(msgspec.Struct, frozen=True, kw_only=True, tag="block"):
    """One scale for `rows` x `cols` values of the last two axes; the last blocks may be partial.

    1 x 32 with exponents for scales is the `mx` format.
    """

    rows: BlockExtent
    cols: BlockExtent
    dtype: Word

    def block(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns under one scale, in values of this shape."""
        return self.rows, self.cols

    def __str__(self) -> str:
        return f"in blocks of {self.rows} x {self.cols} with {self.dtype} scales"


class ChannelScale(msgspec.Struct, frozen=True, kw_only=True, tag="channel"):
    """One scale for each row of the last two axes: each output of a product."""

    dtype: Word

    def block(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns under one scale, in values of this shape."""
        return 1, max(shape[-1], 1)

    def __str__(self) -> str:
        return f"with a {self.dtype} scale a row"


class TwoLevelScale(msgspec.Struct, frozen=True, kw_only=True, tag="two_level"):
    """One scale for `cols` values of a row, and one for the whole tensor that multiplies those.

    16 columns, fp8 scales and an f32 for the whole are the `nvfp4` format.
    """

    cols: BlockExtent
    dtype: Word
    whole_dtype: Word

    def block(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns under one scale of the lower level, in values of this shape."""
        return 1, self.cols

    def __str__(self) -> str:
        return f"in blocks of 1 x {self.cols} with {self.dtype} scales under a {self.whole_dtype}"


ScaleLayout: TypeAlias = BlockScale | ChannelScale | TwoLevelScale

FP8_BLOCKS = BlockScale(rows=FP8_BLOCK, cols=FP8_BLOCK, dtype="f32")
FP8_ROW_BLOCKS = BlockScale(rows=1, cols=FP8_BLOCK, dtype="f32")
MX = BlockScale(rows=1, cols=32, dtype="f8E8M0FNU")
NVFP4 = TwoLevelScale(cols=16, dtype="f8E4M3FN", whole_dtype="f32")


def scale_shape(layout: ScaleLayout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the scales of values of this shape, which has two axes at least."""
    *batch, rows, cols = shape
    high, wide = layout.block(shape)
    return (*batch, -(-rows // high), -(-cols // wide))


class StoredFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint stores a logical weight.

    `stacked`: as one tensor for each entry of its first axis (an expert each).
    """

    dtype: Word
    scale: ScaleLayout | None = None
    stacked: bool = False

    def __str__(self) -> str:
        return self.dtype if self.scale is None else f"{self.dtype} {self.scale}"
