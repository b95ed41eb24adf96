"""The indexer's logits and the exact selection, a tile of rows at a time. Knows no device.

Of the logits only a tile's exist: 8,192 rows over 160,000 positions would be 5 GB.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import msgspec

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

_NAME = "sm90_index_topk_tiles"
_TILE_BYTES = 256 << 20


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


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    launches: list[Launch] = []
    selected = match.view("topk")
    scale = float(match.attr("logits", "scale"))
    for tile in _tiles(match, knobs):
        logits = Carver(match.workspace).take("f32", tile.count, columns(match))
        out = _rows(selected, tile)
        launches.append(logits_launch(match, knobs, logits, tile, scale, _NAME))
        launches.append(topk_launch(match, logits, out, tile.first, knobs["cluster"], _NAME))
    return tuple(launches)


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carver.take("f32", _tile(match, knobs), columns(match))
    return carver.num_bytes


def _work(match: Match, knobs: Knobs) -> Work:
    """The logits are written, and read once."""
    work = logits_work(match, knobs)
    logits = 2 * 4 * prod((match.shape("q")[0], columns(match)))
    launches = 2 * len(_tiles(match, knobs))
    return replace(work, num_bytes=work.num_bytes + logits, launches=launches)


def _columns(match: Match) -> str | None:
    wide = columns(match)
    return None if wide <= MAX_LENGTH else f"{wide} positions, wants <= {MAX_LENGTH}"


INDEX_TOPK_TILES = Lowering(
    name=_NAME,
    pattern=INDEX_TOPK,
    emit=_emit,
    when=INDEX_WHEN & CLUSTERS & Predicate(_columns),
    knobs=(Knob("rows_at_once", (1024, 128, 256, 8192)), *KNOBS, CLUSTER_KNOB),
    workspace=_workspace,
    row_invariant=True,
    work=_work,
)
