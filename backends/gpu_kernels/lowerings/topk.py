"""Exact top-k of rows that are cut into parts, and both the indexer's logits and it, a tile of rows
at a time. For targets without clusters of blocks. Knows no device.

Of the logits only a tile's exist: 8,192 rows over 160,000 positions would be 5 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod

import msgspec

from lostwax.backends.gpu_kernels.lowerings.index_logits import (
    INDEX_WHEN,
    KNOBS,
    RowTile,
    columns,
    logits_launch,
    logits_work,
)
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.indexer import INDEX_TOPK
from lostwax.backends.predicates import dtype, of_rows
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.dialects.dsa import TopkOp
from lostwax.ir.region import Region

_KERNELS = "lostwax.backends.gpu_kernels.topk"
_LEVELS, _DIGITS = 4, 256
_BLOCK = 1024  # logits that a program takes at once
_LEAST_PART = 4096  # shorter ones cost more to count together than they save
_MOST_PARTS = 32
_LAUNCHES = _LEVELS + 1
_TILE_BYTES = 256 << 20
_PARTS_KNOB = Knob("parts", (0, 1, 2, 4, 8, 16, 32))


@dataclass(frozen=True, slots=True)
class _Parts:
    """How rows are cut: a whole number of blocks a part, the last may have less."""

    count: int
    length: int

    @staticmethod
    def of(match: Match, rows: int, length: int, knobs: Knobs) -> _Parts:
        """About two programs a compute unit; the knob has the last word."""
        filling = 2 * match.target.compute_units // max(1, rows)
        wanted = knobs["parts"] or max(1, min(_MOST_PARTS, filling, length // _LEAST_PART))
        blocks = -(-length // _BLOCK)
        each = -(-blocks // wanted)
        return _Parts(-(-blocks // each), each * _BLOCK)


def _carve_counts(parts: _Parts, rows: int, carver: Carver) -> View:
    return carver.take("i32", rows, parts.count, _LEVELS, _DIGITS)


def _launches(
    match: Match, knobs: Knobs, logits: View, out: View, first_row: int, carver: Carver, op: str
) -> tuple[Launch, ...]:
    """Select from logits [rows, scores] to out [rows, k]; row 0 is `first_row` of the step."""
    (rows, length), k = logits.shape, out.shape[1]
    parts = _Parts.of(match, rows, length, knobs)
    counts = _carve_counts(parts, rows, carver)
    sizes = {
        "LENGTH": i32(length),
        "parts": i32(parts.count),
        "part_length": i32(parts.length),
        "k": i32(k),
    }
    blocks = {"BLOCK": _BLOCK, "BLOCK_PARTS": next_power_of_two(parts.count)}
    places = {"real_rows": real_rows(match), "first_row": i32(first_row)}
    stride = {"logits_stride": i32(logits.strides[0])}
    counting = tuple(
        triton_launch(
            match,
            f"{_KERNELS}:topk_count",
            {"logits": logits, "counts": counts, **places, **stride, **sizes},
            {"LEVEL": level, **blocks},
            grid=(rows, parts.count, 1),
            op=op,
            rows_of=("logits_stride",),
        )
        for level in range(_LEVELS)
    )
    strides = {**stride, "out_stride": i32(out.strides[0])}
    writing = triton_launch(
        match,
        f"{_KERNELS}:topk_write",
        {"logits": logits, "counts": counts, "out": out, **places, **strides, **sizes},
        blocks,
        grid=(rows, parts.count, 1),
        op=op,
        rows_of=("logits_stride",),
    )
    return *counting, writing


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    logits, out, carver = match.view("logits"), match.view("op.out"), Carver(match.workspace)
    return _launches(match, knobs, logits, out, 0, carver, "smxx_topk_parts")


def _workspace(match: Match, knobs: Knobs) -> int:
    (rows, length), carver = match.shape("logits"), Carver(None)
    _carve_counts(_Parts.of(match, rows, length, knobs), rows, carver)
    return carver.num_bytes


def _work(match: Match, knobs: Knobs) -> Work:
    """Every launch reads all logits."""
    base = match.work()
    again = 4 * (_LAUNCHES - 1) * prod(match.shape("logits"))
    return Work(base.num_bytes + again, base.flops, _LAUNCHES)


TOPK_PARTS = Lowering(
    name="smxx_topk_parts",
    pattern=Region.single(TopkOp),
    emit=_emit,
    when=dtype("logits", "f32") & of_rows("logits"),
    knobs=(_PARTS_KNOB,),
    workspace=_workspace,
    work=_work,
    row_invariant=True,
)


def _tile(match: Match, knobs: Knobs) -> int:
    """Rows of a tile: the knob's, but no more than there are, and a bounded workspace."""
    rows, wide = match.shape("q")[0], columns(match)
    return max(1, min(knobs["rows_at_once"], rows, _TILE_BYTES // (4 * wide)))


def _tiles(match: Match, knobs: Knobs) -> list[RowTile]:
    rows, each = match.shape("q")[0], _tile(match, knobs)
    return [RowTile(first, min(each, rows - first)) for first in range(0, rows, each)]


def _emit_tiles(match: Match, knobs: Knobs, name: str) -> tuple[Launch, ...]:
    launches: list[Launch] = []
    selected, scale = match.view("topk"), float(match.attr("logits", "scale"))
    for tile in _tiles(match, knobs):
        carver = Carver(match.workspace)
        logits = carver.take("f32", tile.count, columns(match))
        offset = selected.offset + tile.first * selected.strides[0] * DTYPE_BYTES[selected.dtype]
        shape = (tile.count, selected.shape[1])
        out = msgspec.structs.replace(selected, shape=shape, offset=offset)
        launches.append(logits_launch(match, knobs, logits, tile, scale, name))
        launches += _launches(match, knobs, logits, out, tile.first, carver, name)
    return tuple(launches)


def _tiles_workspace(match: Match, knobs: Knobs) -> int:
    carver, rows, wide = Carver(None), _tile(match, knobs), columns(match)
    carver.take("f32", rows, wide)
    _carve_counts(_Parts.of(match, rows, wide, knobs), rows, carver)
    return carver.num_bytes


def _tiles_work(match: Match, knobs: Knobs) -> Work:
    """The logits are written, then read by every launch: time that their products do not hide, so
    it counts as operations, too."""
    work, target = logits_work(match, knobs), match.target
    logits, chosen = 4 * prod((match.shape("q")[0], columns(match))), 4 * prod(match.shape("topk"))
    rate = target.tflops.get(match.dtype("q"), next(iter(target.tflops.values())))
    waits = (_LAUNCHES * logits + chosen) * rate * 1e3 / target.bandwidth_gbps
    launches = (1 + _LAUNCHES) * len(_tiles(match, knobs))
    return Work(work.num_bytes + (1 + _LAUNCHES) * logits, work.flops + waits, launches)


INDEX_TOPK_PARTS = Lowering(
    name="smxx_index_topk_parts",
    pattern=INDEX_TOPK,
    emit=partial(_emit_tiles, name="smxx_index_topk_parts"),
    when=INDEX_WHEN,
    knobs=(Knob("rows_at_once", (1024, 128, 256, 8192)), *KNOBS, _PARTS_KNOB),
    workspace=_tiles_workspace,
    work=_tiles_work,
    row_invariant=True,
)
