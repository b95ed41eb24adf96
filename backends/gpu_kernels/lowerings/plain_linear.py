"""Products with plain weights, read once a tile of rows, where torch has none into f32.

Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lostwax.backends.gpu_kernels.lowerings.fp8_linear import MAP_BORDER
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Tiles,
    i32,
    maps,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.lds import stages
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import Predicate, axis_multiple, dtype, of_rows, plain
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Region

_NAME = "smxx_linear_plain"
_TILE_BYTES = 128  # of K that a tile's row has: what tensor maps swizzle
_GROUP = 8  # tiles of rows that take turns over the same weights
_STAGES = 3
_FLOATS = ("f32", "bf16")


@dataclass(frozen=True, slots=True)
class _Tile:
    """A program's tile, and how many of K's parts it keeps."""

    rows: int
    n: int
    k: int
    num_stages: int

    @staticmethod
    def of(match: Match, knobs: Knobs) -> _Tile:
        """By the rows; not timed on any device."""
        rows, n = match.shape("x")[0], match.shape("weight")[0]
        block_rows = knobs["block_rows"] or next((b for b in (16, 32, 64) if rows <= b), 128)
        block_n = knobs["block_n"] or (128 if n > 64 * match.target.compute_units else 64)
        element = DTYPE_BYTES[match.dtype("x")]
        stage = _TILE_BYTES * (block_rows + block_n)
        held = stages(match.target, knobs["num_stages"], _STAGES, stage)
        return _Tile(block_rows, block_n, _TILE_BYTES // element, held)


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    (rows, k), n = match.shape("x"), match.shape("weight")[0]
    tile, out = _Tile.of(match, knobs), match.view("op.out")
    return (
        triton_launch(
            match,
            "lostwax.backends.gpu_kernels.plain_tiles:plain_tiles",
            {
                "x": Tiles(match.view("x"), (tile.rows, tile.k)),
                "weight": Tiles(match.view("weight"), (tile.n, tile.k)),
                "out": out,
                "real_rows": real_rows(match),
                "num_rows": i32(rows),
                "N": i32(n),
                "K": i32(k),
                "out_stride": i32(out.strides[0]),
            },
            {
                "BLOCK_ROWS": tile.rows,
                "BLOCK_N": tile.n,
                "BLOCK_K": tile.k,
                "GROUP": _GROUP,
                **maps(match.target),
                "WIDE_DOT": int(match.dtype("x") == "f32"),
                "ROUND_FIRST": 0,
            },
            grid=(-(-rows // tile.rows) * -(-n // tile.n), 1, 1),
            op=_NAME,
            num_stages=tile.num_stages,
            rows_of=("out_stride",),
        ),
    )


def _work(match: Match, knobs: Knobs) -> Work:
    """Tiles are filled up, and units wait for the last of them."""
    base, tile = match.work(), _Tile.of(match, knobs)
    rows, n, units = match.shape("x")[0], match.shape("weight")[0], match.target.compute_units
    tiles = -(-rows // tile.rows) * -(-n // tile.n)
    padded = -(-rows // tile.rows) * tile.rows / rows
    waiting = -(-tiles // units) * units / tiles if tiles > units else 1.0
    return replace(base, flops=base.flops * padded * waiting)


def _one_dtype(match: Match) -> str | None:
    x, weight = match.dtype("x"), match.dtype("weight")
    return None if x == weight else f"x is {x}, weight is {weight}: wants them equal"


PLAIN_LINEAR = Lowering(
    name=_NAME,
    pattern=Region.single(LinearOp),
    emit=_emit,
    when=plain("x")
    & plain("weight")
    & dtype("x", *_FLOATS)
    & Predicate(_one_dtype)
    & dtype("op.out", *_FLOATS)
    & axis_multiple("x", 1, MAP_BORDER)
    & of_rows("x"),
    knobs=(
        Knob("block_rows", (0, 16, 32, 64, 128)),
        Knob("block_n", (0, 64, 128)),
        Knob("num_stages", (0, 1, 2, 3, 4)),
    ),
    work=_work,
)
