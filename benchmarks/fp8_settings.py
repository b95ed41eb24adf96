"""Settings of the Triton kernels that `fp8_cases.py` times. Knows no device and no torch."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 128
UNITS = 132
SPLITS = (1, 2, 4, 8)
Knobs = dict[str, int]


def _other_ahead(rows: int) -> Knobs:
    """The rules, but for reading scales ahead: what they do not."""
    return {"ahead": 2 if 4 < rows <= 128 else 1}


def linear_settings(rows: int, form: str, n: int, k: int) -> Iterator[Knobs]:
    """Tiles (rows, side, outputs, stages, warps) with splits that fill the units some times."""
    yield _other_ahead(rows)
    two, waves = form == "bf16", (1, 2)
    if rows <= 16:
        tiles = [(16, 1, 64, 4, 4), (16, 1, 64, 6, 4), (16, 1, 128, 4, 4)]
    elif rows <= 64:
        tiles = [(64, 2, 64, 4, 4), (64, 2, 128, 3, 4), (64, 2, 128, 4, 4), (64, 1, 64, 4, 4)]
        tiles += [] if two else [(64, 2, 64, 6, 4)]
    elif rows <= 128:
        tiles = [(128, 2, 64, 4, 8), (64, 2, 128, 4, 4), (128, 2, 128, 3, 8), (64, 2, 64, 4, 4)]
        tiles += [] if two else [(128, 2, 128, 4, 8), (128, 2, 64, 4, 4)]
    else:
        tiles = [(64, 2, 128, 3, 4), (128, 2, 128, 3, 8), (64, 2, 128, 4, 4)]
        tiles += [] if two else [(128, 2, 128, 4, 8)]
        waves = (0,)
    for block_rows, side, block_n, stages, warps in tiles:
        programs = -(-rows // block_rows) * -(-n // block_n)
        wanted = [wave * UNITS / programs for wave in waves]
        most = max(1, k // BLOCK // 7)
        chosen = {min(SPLITS, key=lambda s, w=w: abs(s - min(w, most))) for w in wanted}
        for splits in sorted(chosen):
            yield {
                "block_rows": block_rows, "side": side, "block_n": block_n,
                "num_stages": stages, "num_warps": warps, "splits": splits,
            }  # fmt: skip


def expert_settings(rows: int) -> Iterator[Knobs]:
    """Settings around those of the rules."""
    yield _other_ahead(rows)
    sizes = {1: (16,), 16: (16,), 64: (32,), 128: (32, 64)}.get(rows, (64, 128))
    for block_rows in sizes:
        for side in (1,) if block_rows < 64 else (2,) if rows > 128 else (1, 2):
            base = {"block_rows": block_rows, "side": side}
            for warps, stages in ((4, 3), (8, 3), (8, 4), (8, 5)) if rows > 1 else ((8, 4), (4, 3)):
                yield base | {"gated_warps": warps, "gated_stages": stages}
            for n, warps, stages in ((64, 4, 4), (128, 4, 4), (128, 8, 3)):
                yield base | {"down_n": n, "down_warps": warps, "down_stages": stages}
