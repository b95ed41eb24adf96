"""Byte layouts of cache rows, by name, and the sizes that follow from a row's parts. Holds no data.

A row is its parts side by side. In a scaled layout the first part's values are followed by their
f32 scales, one for `scale_block` values, which multiply them; the other parts come after. A paged
layout keeps a page's values of all tokens first, then the scales of all tokens. Where parts are
apart, each part of all pages of a layer lies together, the first part first: two contiguous tensors
for latents and rope keys, with the index keys three caches. Where the last part is in halves, its
even numbers come first, then its odd ones: what pairs side by side become when CANN rotates them.
"""

from __future__ import annotations

import msgspec
from msgspec import structs

from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.scale_layout import FP8_BLOCK


class CacheLayout(msgspec.Struct, frozen=True, kw_only=True):
    """How the parts of a row are stored; `dtypes` has one entry a part, or one for all of them."""

    dtypes: tuple[str, ...]
    scale_block: int = 0
    is_paged: bool = False
    parts_apart: bool = False
    in_halves: bool = False

    @property
    def element(self) -> str | None:
        """The one dtype of every element, None where rows are bytes: of several kinds, or apart."""
        return self.dtypes[0] if not self.scale_block and not self.parts_apart else None

    def part_bytes(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """Bytes of each part of one row, without scales."""
        dtypes = self.dtypes * len(row) if len(self.dtypes) == 1 else self.dtypes
        return tuple(width * DTYPE_BYTES[d] for width, d in zip(row, dtypes, strict=True))

    def fits(self, row: tuple[int, ...]) -> bool:
        """Whether a row of these parts can be laid out so."""
        return not self.scale_block or len(row) == len(self.dtypes)

    def order(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """Which number of a row stands at each stored place; scales do not count."""
        before, last = sum(row[:-1]), row[-1]
        ends = (*range(0, last, 2), *range(1, last, 2)) if self.in_halves else range(last)
        return (*range(before), *(before + place for place in ends))

    def scales(self, row: tuple[int, ...]) -> int:
        """Scales of one row."""
        return -(-row[0] // self.scale_block) if self.scale_block else 0

    def row_bytes(self, row: tuple[int, ...]) -> int:
        """Bytes of one row with parts of these widths (its share of a page, if paged)."""
        return sum(self.part_bytes(row)) + self.scales(row) * DTYPE_BYTES["f32"]


_PUBLISHED: dict[str, CacheLayout] = {
    "f32": CacheLayout(dtypes=("f32",)),
    "bf16": CacheLayout(dtypes=("bf16",)),
    # FlashMLA V32_FP8Sparse at ranks 512 and 64: 512 e4m3, 4 f32 scales, 64 bf16
    "fp8_656": CacheLayout(dtypes=("f8E4M3FN", "bf16"), scale_block=FP8_BLOCK),
    # trtllm: 576 e4m3 at ranks 512 and 64, scale 1, saturating
    "fp8_576": CacheLayout(dtypes=("f8E4M3FN",)),
    # DeepGEMM and SGLang: 64 x 128 e4m3, then 64 f32 scales
    "index_paged": CacheLayout(dtypes=("f8E4M3FN",), scale_block=FP8_BLOCK, is_paged=True),
    # the same 132 bytes a token, each token's scale behind its key
    "index_row": CacheLayout(dtypes=("f8E4M3FN",), scale_block=FP8_BLOCK),
    # CANN's paged operators: [blocks, block, 1, 512] and [blocks, block, 1, 64], each contiguous
    "bf16_apart": CacheLayout(dtypes=("bf16",), parts_apart=True, in_halves=True),
}

_FNUZ = "_fnuz"

LAYOUTS: dict[str, CacheLayout] = _PUBLISHED | {
    name + _FNUZ: structs.replace(
        form, dtypes=tuple(d.replace("f8E4M3FN", "f8E4M3FNUZ") for d in form.dtypes)
    )
    for name, form in _PUBLISHED.items()
    if form.dtypes[0] == "f8E4M3FN"
}
"""Every layout that a cache's type may name. Those of fp8 are there in the encoding of gfx942's
matrix units, too: as many bytes a row, of which a code means half."""


def in_encoding(layout: str, encoding: str | None) -> str:
    """The layout with its fp8 in this encoding; itself where it has none."""
    fnuz = layout.removesuffix(_FNUZ) + _FNUZ
    return fnuz if encoding == "f8E4M3FNUZ" and fnuz in LAYOUTS else layout.removesuffix(_FNUZ)


def in_either_encoding(*layouts: str) -> tuple[str, ...]:
    """The layouts in e4m3fn and in e4m3fnuz."""
    return tuple(in_encoding(name, e) for e in ("f8E4M3FN", "f8E4M3FNUZ") for name in layouts)


def row_bytes(layout: str, row: tuple[int, ...]) -> int:
    """Bytes of one cached row."""
    return LAYOUTS[layout].row_bytes(row)
