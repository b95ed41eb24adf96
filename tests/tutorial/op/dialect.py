"""The `act` dialect: activations. This file would be ir/dialects/act.py."""

from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure

from lostwax.ir.fields import PLAIN
from lostwax.ir.op import LostwaxOp


@irdl_op_definition
class Relu2MulOp(LostwaxOp):
    """relu(gate)^2 * up, in f32, rounded once."""

    name = "act.relu2_mul"
    gate = operand_def(PLAIN)
    up = operand_def(PLAIN)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        same = self.shape(self.gate) == self.shape(self.up) == self.shape(self.out)
        self.require(same, f"shapes differ: {self.gate.type}, {self.up.type} -> {self.out.type}")


ACT = Dialect("act", [Relu2MulOp])
