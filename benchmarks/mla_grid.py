"""Which cells of sparse MLA decode (mla_cases) are checked, timed and run once. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterator

import mla_cases
from mla_cases import Cell

LAYOUTS = ("bf16", "fp8_656", "fp8_576")
SMALL_POOL = 64  # pages


def checked_cells() -> Iterator[Cell]:
    """Every form and kind, on few rows: padding, verify rows, odd heads, one and many splits."""
    for layout in LAYOUTS:
        for heads, block in ((4, 16), (16, 16), (20, 32), (64, 32), (128, 64)):
            if block == 64 and layout == "bf16":
                continue
            for splits, kind in zip((1, 2, 4, 16), mla_cases.KINDS, strict=True):
                knobs = {"block_heads": block, "splits": splits}
                yield Cell(layout, heads, 5, pages=97, padding=1, kind=kind, knobs=knobs)
        yield Cell(layout, 16, 9, 3, pages=97, padding=3)
        yield Cell(layout, 128, 3, pages=40, top=300, kind="tail")
        for splits in (1, 8):
            yield Cell(layout, 20, 5, pages=32, padding=1, dense=True, knobs={"splits": splits})
    yield from wide_checks()
    yield Cell("bf16", 32, 4, pages=97, knobs={"query_parts": 1, "block_heads": 32})
    for layout in ("bf16", "fp8_656"):
        yield Cell(layout, 64, 128)  # offsets above 2^32 bytes


WIDE = (
    {"block_heads": 64, "query_parts": 2},
    {"block_heads": 64, "query_parts": 1},
)
"""What 64 heads of bf16 rows are taken by."""


def wide_checks() -> Iterator[Cell]:
    """Of blocks of 64 heads: every form and kind, rows of one request, far rows, a step's tail."""
    for wide in WIDE:
        for splits, kind in zip((1, 2, 4, 16), mla_cases.KINDS, strict=True):
            for heads in (64, 128) if splits < 4 else (70,):
                knobs = wide | {"splits": splits}
                yield Cell("bf16", heads, 5, pages=97, padding=1, kind=kind, knobs=knobs)
        yield Cell("bf16", 20, 9, 3, pages=97, padding=3, knobs=wide | {"splits": 8})
        for splits in (1, 8):
            knobs = wide | {"splits": splits}
            yield Cell("bf16", 128, 3, pages=40, top=300, kind="tail", knobs=knobs)
            yield Cell("bf16", 64, 5, pages=32, padding=1, dense=True, knobs=knobs)
        yield Cell("bf16", 128, 96, 96, pages=97, knobs=wide | {"splits": 1})
        yield Cell("bf16", 64, 128, knobs=wide | {"splits": 1})  # offsets above 2^32 bytes


def wide_timings() -> Iterator[Cell]:
    """Blocks of 64 heads beside smaller ones, a size's forms in turn, large sizes twice."""
    sizes = [(heads, rows) for heads in (128, 64, 32) for rows in (128, 64, 16, 1)]
    for heads, rows in ((128, 1024), *sizes, (16, 128), (16, 64), (128, 4)):
        contexts = (rows, 64) if rows == 1024 else (1, 512)  # rows of a request, its pages
        smaller = ({"block_heads": block, "query_parts": n} for block in (16, 32) for n in (2, 1))
        forms = [f for f in smaller if f["block_heads"] < 2 * heads]
        for wide in WIDE:
            for splits in (1, 2, 4, 8, 16):
                ctas = rows * -(-heads // 64) * splits
                if (splits > 1 and 32 <= ctas <= 132) or (splits == 1 and rows >= 64):
                    forms.append(wide | {"splits": splits})
        for _ in range(2 if heads >= 64 and rows >= 64 else 1):
            for knobs in forms:
                yield Cell("bf16", heads, rows, *contexts, knobs=knobs)


def timed_cells() -> Iterator[Cell]:
    """The grid by the rule, then the settings beside it."""
    for layout in ("bf16", "fp8_656"):
        for heads in (4, 16, 64, 128):
            for rows in (1, 4, 16, 64, 128):
                yield Cell(layout, heads, rows)
                for block in (16, 32) if layout == "bf16" else (16, 32, 64):
                    for splits in (1, 2, 4, 8, 16):
                        programs = rows * -(-heads // block) * splits
                        if block < 2 * heads and 16 <= programs <= 300 and heads >= 16:
                            knobs = {"block_heads": block, "splits": splits}
                            yield Cell(layout, heads, rows, knobs=knobs)
    yield from wide_timings()
    for rows in (1, 16, 128):
        yield Cell("fp8_576", 16, rows)
        yield Cell("fp8_656", 16, rows, pages=32, dense=True)


def small_cells() -> Iterator[Cell]:
    """One instance of each form, as small as it can be."""
    for layout in LAYOUTS:
        for splits in (1, 2):
            knobs = {"splits": splits, "block_heads": 16}
            yield Cell(layout, 16, 2, pages=12, top=512, kind="holes", knobs=knobs, pool=SMALL_POOL)
    knobs = {"splits": 2, "block_heads": 64}
    yield Cell("fp8_656", 64, 2, pages=12, top=512, knobs=knobs, pool=SMALL_POOL)
    yield Cell("bf16", 20, 2, pages=12, top=512, dense=True, knobs={"splits": 2}, pool=SMALL_POOL)
    yield from small_wide_cells()


def small_wide_cells() -> Iterator[Cell]:
    """Those of 64 heads."""
    for wide in WIDE:
        for splits in (1, 2):
            knobs = wide | {"splits": splits}
            yield Cell("bf16", 64, 2, pages=12, top=512, kind="holes", knobs=knobs, pool=SMALL_POOL)
