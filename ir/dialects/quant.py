"""The `quant` dialect: products with stored weights."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure

from lostwax.ir.dialects.core import product
from lostwax.ir.fields import PLAIN
from lostwax.ir.op import Cost, LostwaxOp
from lostwax.ir.types import TensorType


@irdl_op_definition
class LinearOp(LostwaxOp):
    """y = x W^T with x [T, K], W [N, K] (block scales multiplied in), y [T, N].

    Activations are used as they come; products accumulate in at least f32, and y
    is rounded once to the result's dtype.
    """

    name = "quant.linear"
    x = operand_def(PLAIN)
    weight = operand_def(TensorType)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        x, w = self.shape(self.x), self.shape(self.weight)
        self.require(len(x) == 2 and len(w) == 2, "x [T, K] and weight [N, K] are needed")
        self.require(x[1] == w[1], f"x {self.x.type} does not fit weight {self.weight.type}")
        self.require(
            self.shape(self.out) == (x[0], w[0]), f"result {self.out.type} has a wrong shape"
        )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """2 T N K."""
        rows = self.shape(self.x)[0].at(env)
        return Cost(self.boundary_bytes(env), 2 * rows * product(self.shape(self.weight)).at(env))


QUANT = Dialect("quant", [LinearOp])
