"""Attention of many rows: a head's keys and values made once for a tile of rows. Native kernels."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.cpu.contract.rule import symbol_of
from lostwax.backends.cpu.contract.sizes import PANEL
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    ROOM_BYTES,
    TILE,
    in_a_list,
    native,
    num_rows,
    of_types,
    type_name,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.attention import DENSE, SPARSE, Sizes
from lostwax.backends.portable.lowerings.calls import Emit, f32_bytes, scale_view, value_bytes
from lostwax.backends.portable.lowerings.indexer import columns
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Launch, View

_TYPES = (
    "f32 f32 f32 f32", "f32 f32 f8 f32", "f32 f32 s8 f32",
    "bf16 bf16 bf16 bf16", "bf16 bf16 f8 bf16", "bf16 bf16 s8 bf16",
)  # fmt: skip


def _limit(match: Match, is_dense: bool) -> int:
    """Positions that a row may see."""
    wide = columns(match)
    return min(int(match.attr("all", "k")), wide) if is_dense else wide


def _carved(match: Match, workspace: View | None) -> tuple[Carver, View]:
    """The marks of a selection, by row and panel."""
    carver = Carver(workspace)
    words = -(-_limit(match, is_dense=False) // PANEL)
    return carver, carver.take("i64", match.shape("q_nope")[0], words)


def _scratch_bytes(s: Sizes, rows: int) -> int:
    value = -(-s.Dv // TILE) * TILE
    panel = f32_bytes(PANEL, s.C + s.R + s.Dn + value)
    return ROOM_BYTES + panel + f32_bytes(rows, value + 2)


def _emit(name: str, *, is_dense: bool) -> Emit:
    node, out_name = ("attend", "attend") if is_dense else ("op", "op.out")

    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        s, tile = Sizes(match, is_dense), knobs["row_tile"]
        q_nope, q_pe, out = match.view("q_nope"), match.view("q_pe"), match.view(out_name)
        rows, limit, marks = num_rows(match), _limit(match, is_dense), None
        launches: list[Launch] = []
        if not is_dense:
            _, marks = _carved(match, match.workspace)
            selection = match.view("selection")
            launches.append(
                native(
                    match, name, "mark_selected", selection, marks, rows, *selection.shape,
                    marks.shape[1],
                )
            )  # fmt: skip
        types = type_name(match, "q_nope"), type_name(match, "kv_b"), match.dtype("cache_in")
        launches.append(
            native(
                match, name, symbol_of("attend_expanded", " ".join(types)), q_nope,
                q_pe, match.view("kv_b"), scale_view(match, "kv_b"), match.view("cache_in"), marks,
                match.view("positions"), match.view("q_starts"), match.view("page_table"), out,
                rows, s.T, s.H, s.Dn, s.R, s.Dv, s.C, limit, *match.shape("page_table"),
                match.shape("cache_in")[1], min(tile, s.T), *q_nope.strides[:2], *q_pe.strides[:2],
                out.strides[0], float(match.attr(node, "scale")),
                scratch_bytes=_scratch_bytes(s, min(tile, s.T)),
            )
        )  # fmt: skip
        return tuple(launches)

    return emit


def _expanded(name: str, *, is_dense: bool) -> Lowering:
    def work(match: Match, knobs: Knobs) -> Work:
        s = Sizes(match, is_dense)
        requests = 1 if s.T > s.B else s.B  # as a step's rows usually are
        tiles = max(-(-s.T // knobs["row_tile"]), requests)
        seen = s.S - min(s.T // requests, s.S) / 2  # the last rows of a request see all before them
        flops = 2 * tiles * s.S * s.C * s.H * (s.Dn + s.Dv)
        flops += int(2 * s.T * seen * s.H * (s.Dn + s.R + s.Dv))
        cached = requests * s.S * s.W * DTYPE_BYTES[match.dtype("cache_in")]
        return in_a_list(Work(tiles * value_bytes(match, "kv_b") + cached + s.io_bytes, flops))

    out = "attend" if is_dense else "op.out"
    return Lowering(
        name=name,
        pattern=DENSE if is_dense else SPARSE,
        emit=_emit(name, is_dense=is_dense),
        when=ON_HOST
        & P.layout("cache_in", "f32", "bf16")
        & P.of_rows("positions")
        & of_types(f"q_nope q_pe kv_b {out}", *_TYPES),
        knobs=(Knob("row_tile", (512, 128, 256)),),
        workspace=lambda match, knobs: 0 if is_dense else _carved(match, None)[0].num_bytes,
        work=work,
    )


NATIVE_EXPANDED = (
    _expanded("cpu_native_attend_expanded", is_dense=False),
    _expanded("cpu_native_attend_dense_expanded", is_dense=True),
)
