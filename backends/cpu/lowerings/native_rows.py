"""What is done to each row by itself: norms, cache rows, the router. Native kernels."""

from __future__ import annotations

from xdsl.irdl import IRDLOperation

from lostwax.backends import predicates as P
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    alike,
    in_a_list,
    native,
    num_rows,
    of_types,
    symbol,
)
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import Emit
from lostwax.backends.portable.lowerings.norms import ADD_CAST_NORM, ADD_NORM, ADD_NORM_LAST
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.core import AddOp, LayerNormOp, RmsNormOp
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.dialects.moe import RouteOp
from lostwax.ir.region import Region

MOST_PARTS = 2
"""Of a cached row, that the kernel takes."""


def _work(match: Match, knobs: Knobs) -> Work:
    return in_a_list(match.work())


def _emit_rms_norm(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    x, out = match.view("x"), match.view("op.out")
    rows, width = match.shape("x")
    return (
        native(
            match, "cpu_native_rms_norm", symbol("rms_norm", match, "x"), x, match.view("weight"),
            out, num_rows(match), rows, width, x.strides[0], out.strides[0],
            float(match.attr("op", "eps")),
        ),
    )  # fmt: skip


def _emit_layer_norm(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    x, out = match.view("x"), match.view("op.out")
    rows, width = match.shape("x")
    return (
        native(
            match, "cpu_native_layer_norm", symbol("layer_norm", match, "x weight op.out"), x,
            match.view("weight"), match.view("bias"), out, num_rows(match), rows, width,
            x.strides[0], out.strides[0], float(match.attr("op", "eps")),
        ),
    )  # fmt: skip


def _add_norm(name: str, pattern: Region, total: str | None) -> Lowering:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        a, b, out = match.view("a"), match.view("b"), match.view("norm")
        kept = match.view(total) if total else None
        rows, width = match.shape("a")
        return (
            native(
                match, name, symbol("add_norm", match, "a"), a, b, match.view("weight"), kept, out,
                num_rows(match), rows, width, a.strides[0], b.strides[0],
                kept.strides[0] if kept else 0, out.strides[0], float(match.attr("norm", "eps")),
                scratch_bytes=4 * width,
            ),
        )  # fmt: skip

    values = ("a", "b", "weight", "norm", *((total,) if total else ()))
    return Lowering(
        name=name,
        pattern=pattern,
        emit=emit,
        when=ON_HOST & alike(" ".join(values)) & P.dtype("sum", "f32") & _OF_TWO_AXES,
        row_invariant=True,
        work=_work,
    )


_ELEMENTS = {"f32": "f32", "bf16": "bf16", "fp8_576": "f8"}
"""Layouts of one element type, by its name in kernels' symbols."""


def _emit_append(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    cache = match.view("cache_in")
    first, *others = match.views("rows")
    second = others[0] if others else None
    assert second is None or second.dtype == first.dtype  # both are the model's
    kernel = f"append_{first.dtype}_{_ELEMENTS[match.layout('cache_in')]}"
    return (
        native(
            match, "cpu_native_append", kernel, cache, match.view("slots"), first, second,
            num_rows(match), match.bucket.tokens, sum(match.parts("cache_in")),
            first.shape[1], second.shape[1] if second else 0,
            first.strides[0], second.strides[0] if second else 0,
        ),
    )  # fmt: skip


def _few_parts(match: Match) -> str | None:
    count = len(match.parts("cache_in"))
    return None if count <= MOST_PARTS else f"cached rows have {count} parts, wants {MOST_PARTS}"


def _emit_add(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    a, b, out = match.view("a"), match.view("b"), match.view("op.out")
    rows, width = match.shape("a")
    return (
        native(
            match, "cpu_native_add", symbol("add", match, "a b op.out"), a, b, out,
            num_rows(match), rows, width, a.strides[0], b.strides[0], out.strides[0],
        ),
    )  # fmt: skip


def _emit_route(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    logits = match.view("logits")
    rows, experts = match.shape("logits")

    def whole(name: str) -> int:
        return int(match.attr("op", name))

    return (
        native(
            match, "cpu_native_route", "route_f32", logits, match.view("bias"),
            match.view("positions"), match.view("op.ids"), match.view("op.weights"),
            num_rows(match), rows, experts, whole("top_k"), whole("n_group"),
            whole("topk_group"), whole("normalise"), logits.strides[0],
            float(match.attr("op", "scale")), scratch_bytes=12 * experts,
        ),
    )  # fmt: skip


def _lowering(name: str, op: type[IRDLOperation], emit: Emit, when: Predicate) -> Lowering:
    return Lowering(
        name=name,
        pattern=Region.single(op),
        emit=emit,
        when=ON_HOST & when,
        row_invariant=True,
        work=_work,
    )


_NORMED = P.rank("x", 2) & P.of_rows("x")
_OF_TWO_AXES = P.rank("a", 2) & P.of_rows("a")

NATIVE_ROWS = (
    _lowering(
        "cpu_native_rms_norm",
        RmsNormOp,
        _emit_rms_norm,
        alike("x weight op.out") & _NORMED,
    ),
    _lowering(
        "cpu_native_layer_norm",
        LayerNormOp,
        _emit_layer_norm,
        of_types("x weight bias op.out", "f32 f32 f32 f32", "bf16 f32 f32 bf16") & _NORMED,
    ),
    _add_norm("cpu_native_add_cast_norm", ADD_CAST_NORM, "residual"),
    _add_norm("cpu_native_add_norm", ADD_NORM, "sum"),
    _add_norm("cpu_native_add_norm_last", ADD_NORM_LAST, None),
    _lowering(
        "cpu_native_append",
        AppendOp,
        _emit_append,
        P.layout("cache_in", *_ELEMENTS) & Predicate(_few_parts),
    ),
    _lowering(
        "cpu_native_add",
        AddOp,
        _emit_add,
        of_types("a b op.out", "f32 f32 f32", "f32 f32 bf16") & _OF_TWO_AXES,
    ),
    _lowering(
        "cpu_native_route",
        RouteOp,
        _emit_route,
        of_types("logits bias", "f32 f32") & P.of_rows("logits"),
    ),
)
