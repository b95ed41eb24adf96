"""Lowerings of the norms, alone and fused with the residual's sum."""

from __future__ import annotations

from lostwax.backends.ascend.contract.rule import Call
from lostwax.backends.ascend.lowerings.keeps import KERNELS, described, keeps
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import (
    Emit,
    emit_call,
    f32_bytes,
    launch,
    torch_calls,
)
from lostwax.backends.portable.lowerings.linear import same_dtype
from lostwax.backends.portable.lowerings.norms import ADD_CAST_NORM, ADD_NORM_LAST
from lostwax.backends.predicates import rank
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.core import LayerNormOp, RmsNormOp
from lostwax.ir.region import Region


def _rms_call(match: Match) -> Call:
    return Call({"input": described(match, "x"), "gamma": described(match, "weight")})


def _add_call(match: Match) -> Call:
    return Call(
        {
            "x1": described(match, "a"),
            "x2": described(match, "b"),
            "gamma": described(match, "weight"),
        }
    )


def _emit_add(name: str, residual: str | None) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        kept = match.view(residual) if residual else None
        views = (match.view("a"), match.view("b"), match.view("weight"), kept, match.view("norm"))
        consts = {"eps": match.attr("norm", "eps")}
        return launch(name, f"{KERNELS}norms:add_rms_norm", views, consts)

    return emit


def _add_norm(name: str, pattern: Region, residual: str | None) -> Lowering:
    when = keeps("npu_add_rms_norm", _add_call) & same_dtype("norm", "a")
    if residual:
        when = when & same_dtype(residual, "a")
    return Lowering(
        name=name,
        pattern=pattern,
        emit=_emit_add(name, residual),
        when=when,
        row_invariant=True,
        work=torch_calls(2 + (residual is not None)),
        allocates=lambda match, knobs: 6 * f32_bytes(*match.shape("norm")),
    )


NORMS = (
    Lowering(
        name="ascend_rms_norm",
        pattern=Region.single(RmsNormOp),
        emit=emit_call("ascend_rms_norm", f"{KERNELS}norms:rms_norm", "x weight op.out", "eps"),
        when=keeps("npu_rms_norm", _rms_call) & same_dtype("op.out", "x"),
        row_invariant=True,
        work=torch_calls(2),
        allocates=lambda match, knobs: 5 * f32_bytes(*match.shape("op.out")),
    ),
    Lowering(
        name="ascend_layer_norm",
        pattern=Region.single(LayerNormOp),
        emit=emit_call(
            "ascend_layer_norm", f"{KERNELS}norms:layer_norm", "x weight bias op.out", "eps"
        ),
        when=rank("x", 2),
        row_invariant=True,
        work=torch_calls(2),
        allocates=lambda match, knobs: 3 * f32_bytes(*match.shape("op.out")),
    ),
    _add_norm("ascend_add_cast_norm", ADD_CAST_NORM, "residual"),
    _add_norm("ascend_add_norm_last", ADD_NORM_LAST, None),
)
