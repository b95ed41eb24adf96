"""Attention over the paged cache and the indexer's choice, in f32: native kernels."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    f32,
    in_a_list,
    native,
    num_rows,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.attention import DENSE, SPARSE, Sizes
from lostwax.backends.portable.lowerings.calls import Emit, f32_bytes
from lostwax.backends.portable.lowerings.indexer import INDEX_TOPK, columns
from lostwax.ir.contract.program import Launch, View

HEADS = 4
"""Of a chunk, as `kernels/attention.cpp` cuts them."""
FEW_ROWS = 8
"""Up to so many rows, each is a chunk of its own beside the others."""
ROWS_OF_CHUNK = 16
"""Of more: they read the same cached keys while those are near."""

_F32 = P.layout("cache_in", "f32") & P.of_rows("positions")


def _carved(s: Sizes, workspace: View | None) -> tuple[Carver, View, View]:
    """Absorbed queries and contexts, of every head."""
    carver = Carver(workspace)
    return carver, carver.take("f32", s.T, s.H, s.C + s.R), carver.take("f32", s.T, s.H, s.C)


def _emit_attend(name: str, *, is_dense: bool) -> Emit:
    node, out_name = ("attend", "attend") if is_dense else ("op", "op.out")

    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        s = Sizes(match, is_dense)
        _, q, context = _carved(s, match.workspace)
        q_nope, q_pe, out = match.view("q_nope"), match.view("q_pe"), match.view(out_name)
        kv_b, cache, rows = match.view("kv_b"), match.view("cache_in"), num_rows(match)
        most = int(match.attr("all", "k")) if is_dense else s.K
        most = min(most, columns(match))
        return (
            native(
                match, name, "absorb_f32", q_nope, q_pe, kv_b, q, rows, s.T, s.H, s.Dn, s.R, s.Dv,
                s.C, *q_nope.strides[:2], *q_pe.strides[:2], float(match.attr(node, "scale")),
            ),
            native(
                match, name, "attend_f32", q, cache,
                None if is_dense else match.view("selection"), match.view("positions"),
                match.view("q_starts"), match.view("page_table"), context, rows, s.T, s.H, s.R,
                s.C, most, *match.shape("page_table"), cache.shape[1],
                scratch_bytes=4 * HEADS * most + 8 * most,
            ),
            native(
                match, name, "write_heads_f32", context, kv_b, out, rows, s.T, s.H, s.Dn, s.Dv,
                s.C, out.strides[0],
            ),
        )  # fmt: skip

    return emit


def _attend(name: str, *, is_dense: bool) -> Lowering:
    def work(match: Match, knobs: Knobs) -> Work:
        s = Sizes(match, is_dense)
        flops = 2 * s.T * s.H * (s.C * (s.Dn + s.Dv) + s.K * (2 * s.C + s.R))
        moved = f32_bytes(s.T, s.K, s.W) + s.kv_b_bytes + s.io_bytes
        return in_a_list(Work(moved, flops))

    out = "attend" if is_dense else "op.out"
    return Lowering(
        name=name,
        pattern=DENSE if is_dense else SPARSE,
        emit=_emit_attend(name, is_dense=is_dense),
        when=ON_HOST & _F32 & f32("q_nope", "q_pe", "kv_b", out),
        row_invariant=not is_dense,  # one form in all programs: over a selection
        workspace=lambda match, knobs: _carved(Sizes(match, is_dense), None)[0].num_bytes,
        work=work,
    )


def _emit_index(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    name, q, weights = "cpu_native_index_topk", match.view("q"), match.view("weights")
    all_rows, heads, dim = match.shape("q")
    wide, chosen, positions = columns(match), match.view("topk"), match.view("positions")
    tile, rows = knobs["row_tile"], num_rows(match)
    logits = Carver(match.workspace).take("f32", min(tile, all_rows), wide)
    many = 1 if all_rows <= FEW_ROWS else ROWS_OF_CHUNK
    launches: list[Launch] = []
    for first in range(0, all_rows, tile):
        here = min(tile, all_rows - first)
        launches += (
            native(
                match, name, "index_logits_f32", q, weights, match.view("cache_in"), positions,
                match.view("q_starts"), match.view("page_table"), logits, rows, first, here, heads,
                dim, chosen.shape[1], *match.shape("page_table"), match.shape("cache_in")[1], wide,
                many, *q.strides[:2], weights.strides[0], float(match.attr("logits", "scale")),
                scratch_bytes=4 * (dim + 4 * (heads + 3)),
            ),
            native(
                match, name, "index_select", logits, positions, chosen, rows, first, here,
                chosen.shape[1], wide, scratch_bytes=8 * wide,
            ),
        )  # fmt: skip
    return tuple(launches)


def _index_workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carver.take("f32", min(knobs["row_tile"], match.shape("q")[0]), columns(match))
    return carver.num_bytes


NATIVE_ATTENTION = (
    _attend("cpu_native_attend", is_dense=False),
    _attend("cpu_native_attend_dense", is_dense=True),
    Lowering(
        name="cpu_native_index_topk",
        pattern=INDEX_TOPK,
        emit=_emit_index,
        when=ON_HOST & _F32 & f32("q", "weights"),
        row_invariant=True,
        knobs=(Knob("row_tile", (128, 32, 512)),),
        workspace=_index_workspace,
        work=lambda match, knobs: in_a_list(match.work()),
    ),
)
