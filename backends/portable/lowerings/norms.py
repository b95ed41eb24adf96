"""Lowerings of the norms, alone and fused with the residual's sum."""

from __future__ import annotations

from collections.abc import Callable

from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import (
    Emit,
    emit_call,
    f32_bytes,
    launch,
    torch_calls,
)
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.core import LayerNormOp, RmsNormOp
from lostwax.ir.region import Node, Region

_SUM = Node("core.add", {"a": "a", "b": "b"})
_NORM = Node("core.rms_norm", {"x": "sum", "weight": "weight"})

ADD_CAST_NORM = Region(
    {"sum": _SUM, "residual": Node("core.cast", {"x": "sum"}), "norm": _NORM},
    ("residual", "norm"),
)
"""The sum stays in f32 inside; its rounding leaves, and the norm of the unrounded sum."""

ADD_NORM = Region({"sum": _SUM, "norm": _NORM}, ("sum", "norm"))
"""The same where nothing is rounded."""

ADD_NORM_LAST = Region({"sum": _SUM, "norm": _NORM}, ("norm",))
"""The head's: nobody reads the sum any more."""


def _wide(out: str, count: int) -> Callable[[Match, Knobs], int]:
    def allocates(match: Match, knobs: Knobs) -> int:
        *rows, width = match.shape(out)
        return f32_bytes(*rows, count * width + 8) + f32_bytes(width)  # numbers a row, the weight

    return allocates


def _emit_add_norm(name: str, residual: str | None) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        kept = match.view(residual) if residual else None
        views = (match.view("a"), match.view("b"), match.view("weight"), kept, match.view("norm"))
        consts = {"eps": match.attr("norm", "eps")}
        return launch(name, "norms:add_norm", views, consts)

    return emit


def _add_norm(name: str, pattern: Region, residual: str | None) -> Lowering:
    return Lowering(
        name=name,
        pattern=pattern,
        emit=_emit_add_norm(name, residual),
        row_invariant=True,
        work=torch_calls(8),
        allocates=_wide("norm", 3),
    )


NORMS = (
    Lowering(
        name="portable_rms_norm",
        pattern=Region.single(RmsNormOp),
        emit=emit_call("portable_rms_norm", "norms:rms_norm", "x weight op.out", "eps"),
        row_invariant=True,
        work=torch_calls(7),
        allocates=_wide("op.out", 3),
    ),
    Lowering(
        name="portable_layer_norm",
        pattern=Region.single(LayerNormOp),
        emit=emit_call("portable_layer_norm", "norms:layer_norm", "x weight bias op.out", "eps"),
        row_invariant=True,
        work=torch_calls(2),
        allocates=_wide("op.out", 2),
    ),
    _add_norm("portable_add_cast_norm", ADD_CAST_NORM, "residual"),
    _add_norm("portable_add_norm", ADD_NORM, "sum"),
    _add_norm("portable_add_norm_last", ADD_NORM_LAST, None),
)
