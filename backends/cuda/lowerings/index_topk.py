"""The indexer's logits and the exact selection, a tile of rows at a time. Knows no device.

Of the logits only a tile's exist: 8,192 rows over 160,000 positions would be 5 GB. They are made by
the kernel of all GPUs, or by Hopper's (`index_logits.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import msgspec

from lostwax.backends.cuda.lowerings.index_logits import (
    INDEX_BF16_WHEN,
    INDEX_FP8_WHEN,
    INDEX_KNOBS,
    index_launch,
    index_work,
    list_tiles,
)
from lostwax.backends.cuda.lowerings.topk import CLUSTER_KNOB, CLUSTERS, MAX_LENGTH, topk_launch
from lostwax.backends.gpu_kernels.lowerings.index_logits import (
    INDEX_WHEN,
    KNOBS,
    RowTile,
    columns,
    logits_launch,
    logits_work,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.indexer import INDEX_TOPK
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.step_kernel import Prepared

_TILE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class _Logits:
    """How logits are made: a launch a tile, the work of all, what a tile lists once a step."""

    launch: Callable[[Match, Knobs, View, RowTile, float, str], Launch]
    work: Callable[[Match, Knobs], Work]
    prepare: Callable[[Match, Knobs, RowTile], tuple[Prepared, ...]]


def _tile(match: Match, knobs: Knobs) -> int:
    """Rows of a tile: the knob's, but no more than there are, and a bounded workspace."""
    rows, wide = match.shape("q")[0], columns(match)
    return max(1, min(knobs["rows_at_once"], rows, _TILE_BYTES // (4 * wide)))


def _tiles(match: Match, knobs: Knobs) -> list[RowTile]:
    rows, each = match.shape("q")[0], _tile(match, knobs)
    return [RowTile(first, min(each, rows - first)) for first in range(0, rows, each)]


def _rows(view: View, tile: RowTile) -> View:
    """The tile's rows of a view."""
    offset = view.offset + tile.first * view.strides[0] * DTYPE_BYTES[view.dtype]
    return msgspec.structs.replace(view, shape=(tile.count, *view.shape[1:]), offset=offset)


def _emit(match: Match, knobs: Knobs, name: str, made: _Logits) -> tuple[Launch, ...]:
    launches: list[Launch] = []
    selected = match.view("topk")
    scale = float(match.attr("logits", "scale"))
    for tile in _tiles(match, knobs):
        logits = Carver(match.workspace).take("f32", tile.count, columns(match))
        out = _rows(selected, tile)
        launches.append(made.launch(match, knobs, logits, tile, scale, name))
        launches.append(topk_launch(match, logits, out, tile.first, knobs["cluster"], name))
    return tuple(launches)


def _prepare(match: Match, knobs: Knobs, made: _Logits) -> tuple[Prepared, ...]:
    return tuple(op for tile in _tiles(match, knobs) for op in made.prepare(match, knobs, tile))


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carver.take("f32", _tile(match, knobs), columns(match))
    return carver.num_bytes


def _work(match: Match, knobs: Knobs, made: _Logits) -> Work:
    """The logits are written, then read once, and what is chosen written: time that their products
    do not hide, so it counts as operations, too. The price is then that of both apart, and the
    launches of more tiles."""
    work, target = made.work(match, knobs), match.target
    logits, chosen = 4 * prod((match.shape("q")[0], columns(match))), 4 * prod(match.shape("topk"))
    rate = target.tflops.get(match.dtype("q"), next(iter(target.tflops.values())))
    waits = (logits + chosen) * rate * 1e3 / target.bandwidth_gbps
    return Work(work.num_bytes + 2 * logits, work.flops + waits, 2 * len(_tiles(match, knobs)))


def _columns(match: Match) -> str | None:
    wide = columns(match)
    return None if wide <= MAX_LENGTH else f"{wide} positions, wants <= {MAX_LENGTH}"


def _lowering(name: str, when: Predicate, knobs: tuple[Knob, ...], made: _Logits) -> Lowering:
    return Lowering(
        name=name,
        pattern=INDEX_TOPK,
        emit=partial(_emit, name=name, made=made),
        when=when & CLUSTERS & Predicate(_columns),
        knobs=(Knob("rows_at_once", (1024, 128, 256, 8192)), *knobs, CLUSTER_KNOB),
        prepare=partial(_prepare, made=made),
        workspace=_workspace,
        row_invariant=True,
        work=partial(_work, made=made),
    )


INDEX_TOPK_TILES = _lowering(
    "sm90_index_topk_tiles",
    INDEX_WHEN,
    KNOBS,
    _Logits(logits_launch, logits_work, lambda match, knobs, tile: ()),
)
_HOPPER = _Logits(
    index_launch, index_work, lambda match, knobs, tile: (list_tiles(match, knobs, tile),)
)
FP8_INDEX_TOPK_TILES = _lowering("sm90_fp8_index_topk_tiles", INDEX_FP8_WHEN, INDEX_KNOBS, _HOPPER)
BF16_INDEX_TOPK_TILES = _lowering(
    "sm90_bf16_index_topk_tiles", INDEX_BF16_WHEN, INDEX_KNOBS, _HOPPER
)
