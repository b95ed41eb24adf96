"""The head's gather and product as one call: backends/portable/lowerings/gather_linear.py."""

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import f32_bytes, launch, torch_calls
from lostwax.ir.contract.program import Launch
from lostwax.ir.region import Node, Region

GATHER_LINEAR = Region(
    {
        "rows": Node("core.gather_rows", {"x": "x", "rows": "logit_rows"}),
        "logits": Node("quant.linear", {"x": "rows", "weight": "weight"}),
    },
    ("logits",),
)


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = tuple(match.view(v) for v in ("x", "logit_rows", "weight", "logits"))
    return launch("portable_gather_linear", "gather_linear:gather_linear", views)


LOWERING = Lowering(
    name="portable_gather_linear",
    pattern=GATHER_LINEAR,
    emit=_emit,
    when=P.dtype("x", "f32") & P.dtype("weight", "f32"),
    work=torch_calls(4),
    allocates=lambda match, knobs: f32_bytes(*match.shape("rows")),
)
