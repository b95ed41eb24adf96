"""The `quant` dialect: products with stored weights, and the rounding of activations to 8 bits."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects import builtin
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from lostwax.ir.dialects.core import product
from lostwax.ir.fields import PLAIN
from lostwax.ir.op import Cost, LostwaxOp
from lostwax.ir.types import TensorType


@irdl_op_definition
class LinearOp(LostwaxOp):
    """y = x W^T with x [T, K], W [N, K] (block scales of both multiplied in), y [T, N].

    Activations are used as they come; products accumulate in at least f32, and y
    is rounded once to the result's dtype.
    """

    name = "quant.linear"
    x = operand_def(TensorType)
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


SCALE_FMTS = ("fp32", "ue8m0")
"""How a scale is rounded: to f32, or up to a power of two (the exponent of the f32 value)."""


ENCODINGS = ("f8E4M3FN", "f8E4M3FNUZ", "si8")
"""What activations are rounded to; si8 is -127 .. 127."""


@irdl_op_definition
class QuantiseOp(LostwaxOp):
    """fp8(x / s) or si8(x / s), and the scales s: one a row and block of the last axis.

    s = max(amax of the block, 1e-4) / the encoding's largest value, in f32; with `ue8m0` the next
    power of two from there. x / s is rounded to f32, then to the encoding, to nearest even and
    saturating. The block and the encoding are the result's.
    """

    name = "quant.quantise"
    x = operand_def(PLAIN)
    scale_fmt = prop_def(builtin.StringAttr)
    out = result_def(TensorType)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require(self.shape(self.x) == self.shape(self.out), "quantising keeps the shape")
        fmt, kind = self.scale_fmt.data, self.out.type
        self.require(fmt in SCALE_FMTS, f"scale_fmt {fmt!r} is not one of {', '.join(SCALE_FMTS)}")
        assert isinstance(kind, TensorType)  # the field's constraint
        scale = kind.block_scale
        self.require(
            scale is not None
            and scale.rows.data == 1
            and str(scale.dtype) == "f32"
            and kind.dtype_name in ENCODINGS,
            f"the result must be fp8 or si8 with f32 scales of one row each, not {kind}",
        )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Four operations an element."""
        return Cost(self.boundary_bytes(env), 4 * product(self.shape(self.x)).at(env))


QUANT = Dialect("quant", [LinearOp, QuantiseOp])
