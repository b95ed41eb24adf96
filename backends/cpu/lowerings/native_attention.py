"""Attention over the paged cache and the indexer's choice, in f32: native kernels."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    Argument,
    f32,
    in_a_list,
    native,
    num_rows,
)
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.attention import DENSE, SPARSE, Sizes
from lostwax.backends.portable.lowerings.calls import Emit, f32_bytes
from lostwax.backends.portable.lowerings.indexer import INDEX_TOPK, columns
from lostwax.ir.contract.program import Launch, View

HEADS = 4
"""Of a chunk, as `kernels/attention.cpp` cuts them."""
FEW_ROWS = 8
"""Up to so many, a row's logits are cut among the threads."""

_F32 = P.layout("cache_in", "f32") & P.of_rows("positions")


def _emit_attend(name: str, *, is_dense: bool) -> Emit:
    node, out_name = ("attend", "attend") if is_dense else ("op", "op.out")

    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        s = Sizes(match, is_dense)
        q_nope, q_pe, out = match.view("q_nope"), match.view("q_pe"), match.view(out_name)
        table = match.view("page_table")
        most = int(match.attr("all", "k")) if is_dense else s.K
        most = min(most, columns(match))
        return (
            native(
                match, name, "attend_f32", q_nope, q_pe, match.view("kv_b"),
                match.view("cache_in"), None if is_dense else match.view("selection"),
                match.view("positions"), match.view("q_starts"), table, out, num_rows(match),
                s.T, s.H, s.Dn, s.R, s.Dv, s.C, most, *table.shape, match.shape("cache_in")[1],
                *q_nope.strides[:2], *q_pe.strides[:2], out.strides[0],
                float(match.attr(node, "scale")),
                scratch_bytes=4 * HEADS * (2 * s.C + s.R + most) + 8 * most,
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
        row_invariant=True,
        by_name=True,
        work=work,
    )


def _index_arguments(match: Match, out: View) -> tuple[Argument, ...]:
    q, weights, table = match.view("q"), match.view("weights"), match.view("page_table")
    rows, heads, dim = match.shape("q")
    return (
        q, weights, match.view("cache_in"), match.view("positions"), match.view("q_starts"),
        table, out, num_rows(match), rows, heads, dim, match.view("topk").shape[1],
        *table.shape, match.shape("cache_in")[1], columns(match), *q.strides[:2],
        weights.strides[0], float(match.attr("logits", "scale")),
    )  # fmt: skip


def _logits(match: Match, workspace: View) -> View:
    rows, wide = match.shape("q")[0], columns(match)
    return View(
        space=workspace.space,
        name=workspace.name,
        dtype="f32",
        shape=(rows, wide),
        strides=(wide, 1),
        offset=workspace.offset,
    )


def _emit_index(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    name, chosen = "cpu_native_index_topk", match.view("topk")
    rows, wide = match.shape("q")[0], columns(match)
    if rows > FEW_ROWS:
        arguments = _index_arguments(match, chosen)
        return (native(match, name, "index_topk_f32", *arguments, scratch_bytes=4 * wide),)
    assert match.workspace is not None
    logits = _logits(match, match.workspace)
    return (
        native(match, name, "index_logits_f32", *_index_arguments(match, logits)),
        native(
            match, name, "index_select", logits, match.view("positions"), chosen, num_rows(match),
            rows, chosen.shape[1], wide,
        ),
    )  # fmt: skip


def _index_workspace(match: Match, knobs: Knobs) -> int:
    rows = match.shape("q")[0]
    return f32_bytes(rows, columns(match)) if rows <= FEW_ROWS else 0


NATIVE_ATTENTION = (
    _attend("cpu_native_attend", is_dense=False),
    _attend("cpu_native_attend_dense", is_dense=True),
    Lowering(
        name="cpu_native_index_topk",
        pattern=INDEX_TOPK,
        emit=_emit_index,
        when=ON_HOST & _F32 & f32("q", "weights"),
        row_invariant=True,
        by_name=True,
        workspace=_index_workspace,
        work=lambda match, knobs: in_a_list(match.work()),
    ),
)
