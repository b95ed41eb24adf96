"""Products of half precision into f32 without a conversion of the weight. Knows no device."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import Emit, launch
from lostwax.backends.portable.lowerings.linear import TRANSPOSED, same_dtype, transposed
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.weights import WeightForm
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Region

_WHEN = (
    P.fact("wide_products", True)
    & P.dtype("x", "bf16", "f16")
    & P.plain("weight")
    & same_dtype("x", "weight")
    & P.dtype("op.out", "f32")
)


def _emit(name: str, is_transposed: bool) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        stored = match.view("weight")
        weight = transposed(stored) if is_transposed else stored
        views = (match.view("x"), weight, match.view("op.out"))
        return launch(name, "wide_products:linear", views)

    return emit


def _lowering(name: str, weights: dict[str, WeightForm], is_transposed: bool) -> Lowering:
    return Lowering(
        name=name,
        pattern=Region.single(LinearOp),
        emit=_emit(name, is_transposed),
        when=_WHEN,
        weights=weights,
        library="torch",
    )


WIDE_PRODUCTS = (
    _lowering("torch_linear_wide_out", {}, is_transposed=False),
    _lowering("torch_linear_wide_out_transposed", {"weight": TRANSPOSED}, is_transposed=True),
)
