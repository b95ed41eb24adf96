"""The `moe` dialect: routing and routed experts."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects import builtin
from xdsl.ir import Dialect
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from lostwax.ir.dialects.quant import SCALE_FMTS
from lostwax.ir.fields import F32, I32, PLAIN
from lostwax.ir.op import Cost, LostwaxOp, type_bytes
from lostwax.ir.size import Size
from lostwax.ir.types import TensorType

Int = builtin.IntegerAttr


@irdl_op_definition
class RouteOp(LostwaxOp):
    """noaux_tc routing: sigmoid scores, biased group-limited choice, unbiased weights.

    logits [T, E] f32, bias [E] f32, positions [T] -> ids [T, K] i32 (descending biased score,
    lowest index wins ties), weights [T, K] f32. Group score = sum of its two best biased scores;
    experts outside the topk_group best groups are excluded. weights = sigmoid / (sum +
    1e-20 if normalise) * scale. Rows without a token (position -1) get ids -1.
    """

    name = "moe.route"
    logits = operand_def(F32)
    bias = operand_def(F32)
    positions = operand_def(I32)
    top_k = prop_def(Int)
    n_group = prop_def(Int)
    topk_group = prop_def(Int)
    normalise = prop_def(builtin.BoolAttr)
    scale = prop_def(builtin.FloatAttr)
    ids = result_def(I32)
    weights = result_def(F32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        logits = self.shape(self.logits)
        self.require(self.shape(self.bias) == logits[1:], "one bias an expert is needed")
        self.require(self.shape(self.positions) == logits[:1], "one position a row is needed")
        want = (logits[0], Size.of(self.top_k.value.data))
        self.require(
            self.shape(self.ids) == self.shape(self.weights) == want,
            f"results must be [{want[0]}, {want[1]}]",
        )
        experts, groups = logits[1].constant, self.n_group.value.data
        self.require(
            experts is not None and groups > 0 and experts % groups == 0,
            f"{logits[1]} experts do not divide into {groups} groups",
        )
        self.require(
            self.topk_group.value.data in range(1, groups + 1),
            f"topk_group {self.topk_group.value.data} is not one of 1..{groups}",
        )


@irdl_op_definition
class ExpertsOp(LostwaxOp):
    """sum_k weights[t, k] * down_e(silu(gate_e x) * up_e x), e = ids[t, k]; id -1 adds nothing.

    x [T, D], ids [T, K], weights [T, K] f32, gate and up [E, I, D], down [E, D, I] -> [T, D],
    summed in f32. With `hidden_fmt`, what enters down_e is quantised as x is: `quant.quantise` in
    x's encoding and blocks with that scale_fmt.
    """

    name = "moe.experts"
    x = operand_def(TensorType)
    ids = operand_def(I32)
    weights = operand_def(F32)
    gate = operand_def(TensorType)
    up = operand_def(TensorType)
    down = operand_def(TensorType)
    hidden_fmt = opt_prop_def(builtin.StringAttr)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        x, gate, down = self.shape(self.x), self.shape(self.gate), self.shape(self.down)
        self.require(gate == self.shape(self.up), "gate and up differ in shape")
        self.require(len(gate) == 3 and len(x) == 2, "x [T, D] and gate [E, I, D] are needed")
        ids = self.shape(self.ids)
        self.require(
            ids == self.shape(self.weights) and ids[:1] == x[:1], "one choice of experts a row"
        )
        self.require(
            gate[2] == x[1] and down == (gate[0], gate[2], gate[1]),
            f"experts {self.gate.type}, {self.down.type} do not fit {self.x.type}",
        )
        self.require(self.shape(self.out) == x, f"result {self.out.type} has a wrong shape")
        self.require(
            self.is_scaled(self.x) == (self.hidden_fmt is not None),
            "x is scaled fp8 and hidden_fmt given, or neither",
        )
        fmt = self.hidden_fmt
        self.require(
            fmt is None or fmt.data in SCALE_FMTS,
            f"hidden_fmt {fmt} is not one of {', '.join(SCALE_FMTS)}",
        )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Three products a chosen expert; weights of at most E distinct experts are read."""
        tokens, top_k = (s.at(env) for s in self.shape(self.ids))
        experts, inter, dim = (s.at(env) for s in self.shape(self.gate))
        stored = sum(type_bytes(v.type, env) for v in (self.gate, self.up, self.down))
        used = min(experts, tokens * top_k)
        moved = self.boundary_bytes(env) - stored + stored * used // experts
        return Cost(moved, 6 * tokens * top_k * inter * dim)


MOE = Dialect("moe", [RouteOp, ExpertsOp])
