"""The `dsa` dialect: DeepSeek sparse attention's indexer and its selections."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from xdsl.dialects import builtin
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from lostwax.ir.fields import F32, I32, PLAIN
from lostwax.ir.op import Cost, LostwaxOp, row_bytes
from lostwax.ir.size import Size
from lostwax.ir.types import CacheType, TensorType


@irdl_op_definition
class IndexLogitsOp(LostwaxOp):
    """I[t, s] = scale * sum_h weights[t, h] * relu(q[t, h] . k[s]) over visible positions.

    q [T, Hi, Di], weights [T, Hi] f32 (may be negative), cache rows [Di] -> out [T, page*P] f32,
    column s is position s of the row's request; -inf where s > positions[t].
    q and k are both scaled fp8 or both plain.
    """

    name = "dsa.index_logits"
    q = operand_def(TensorType)
    weights = operand_def(F32)
    cache_in = operand_def(CacheType)
    positions = operand_def(I32)
    q_starts = operand_def(I32)
    page_table = operand_def(I32)
    scale = prop_def(builtin.FloatAttr)
    out = result_def(F32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        q, cache = self.shape(self.q), self.cache(self.cache_in)
        self.require(len(q) == 3, "q [T, heads, dim] is needed")
        self.require(self.shape(self.weights) == q[:2], "weights must be [T, heads]")
        self.require(cache.row == (q[2].constant,), f"cache {cache} does not fit {self.q.type}")
        self.require(
            self.is_scaled(self.q) == (cache.form.scale_block > 0),
            f"q {self.q.type} and cache {cache} must both be scaled fp8, or neither",
        )
        self.require(self.shape(self.positions) == q[:1], "one position a row is needed")
        self.require_requests(self.q_starts, self.page_table)
        columns = Size.of(cache.page_tokens.data) * self.shape(self.page_table)[1]
        self.require(self.shape(self.out) == (q[0], columns), f"result must be [{q[0]}, {columns}]")

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Every visible key once a request, 2 T S Hi Di."""
        tokens, heads, dim = (s.at(env) for s in self.shape(self.q))
        columns = self.shape(self.out)[1].at(env)
        requests = self.shape(self.page_table)[0].at(env)
        read = requests * columns * row_bytes(self.cache(self.cache_in))
        return Cost(self.boundary_bytes(env) + read, 2 * tokens * columns * heads * (dim + 1))


@irdl_op_definition
class TopkOp(LostwaxOp):
    """The k largest logits of each row as a set: positions ascending, then -1.

    The lowest index wins ties; -inf and NaN are never chosen. logits [T, S] f32 -> [T, k] i32.
    """

    name = "dsa.topk"
    logits = operand_def(F32)
    k = prop_def(builtin.IntegerAttr)
    out = result_def(I32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        want = (self.shape(self.logits)[0], Size.of(self.k.value.data))
        self.require(self.shape(self.out) == want, f"result must be [{want[0]}, {want[1]}]")


@irdl_op_definition
class AllOp(LostwaxOp):
    """Every visible position 0..positions[t] of each row, ascending, then -1; at most k of them.

    What `dsa.topk` gives where a guard says that no request is longer than k.
    """

    name = "dsa.all"
    positions = operand_def(I32)
    k = prop_def(builtin.IntegerAttr)
    out = result_def(I32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        want = (self.shape(self.positions)[0], Size.of(self.k.value.data))
        self.require(self.shape(self.out) == want, f"result must be [{want[0]}, {want[1]}]")


@irdl_op_definition
class HadamardOp(LostwaxOp):
    """x H / sqrt(D) over the last axis: H [D, D] of +-1 in Sylvester's order, D a power of two.

    Orthogonal, so products of two rotated rows are unchanged; it only spreads large elements before
    both are quantised.
    """

    name = "dsa.hadamard"
    x = operand_def(PLAIN)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        x = self.shape(self.x)
        self.require(x == self.shape(self.out), "the rotation keeps the shape")
        width = x[-1].constant or 0
        self.require(
            width > 0 and width & (width - 1) == 0, f"the last axis, {x[-1]}, is no power of two"
        )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """log2(D) additions an element."""
        sizes = [s.at(env) for s in self.shape(self.x)]
        return Cost(self.boundary_bytes(env), prod(sizes) * (sizes[-1].bit_length() - 1))


DSA = Dialect("dsa", [IndexLogitsOp, TopkOp, AllOp, HadamardOp])
