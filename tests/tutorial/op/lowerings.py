"""Lowerings of the `act` ops. This file would be backends/portable/lowerings/act.py."""

from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings.calls import emit_call, torch_calls
from lostwax.ir.dialects.act import Relu2MulOp  # pyright: ignore
from lostwax.ir.region import Region

RELU2_MUL = Lowering(
    name="portable_relu2_mul",
    pattern=Region.single(Relu2MulOp),
    emit=emit_call("portable_relu2_mul", "act:relu2_mul", "gate up op.out"),
    row_invariant=True,
    work=torch_calls(3),
)
