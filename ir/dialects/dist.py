"""The `dist` dialect: what ranks of one mesh axis hold and exchange. Knows no process group.

Its ops have no reference: after `localise` a module is one rank's, and what the ranks compute
together is what the module meant before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.dialects import builtin
from xdsl.ir import Attribute, Dialect, ParametrizedAttribute
from xdsl.irdl import (
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure

from lostwax.ir.dialects.core import product
from lostwax.ir.fields import PLAIN
from lostwax.ir.op import Cost, LostwaxOp, type_bytes
from lostwax.ir.size import Size

SHARD = "lostwax.shard"
"""Attribute of a weight argument: its `#dist.split`. Of an op, between `shard` and `localise`: a
dictionary of how it takes its `operands` and gives its `results` (unit: whole on every rank)."""
MESH = "lostwax.mesh"
"""Attribute of a sharded module: ranks by mesh axis, `{tp = 2 : i64}`."""
LOCAL = "lostwax.local"
"""Attribute of a localised module: its shapes are one rank's."""


@irdl_attr_definition
class SplitAttr(ParametrizedAttribute):
    """`#dist.split<"tp", 0>`: a rank holds its slice of axis 0, in rank order."""

    name = "dist.split"
    over: builtin.StringAttr
    axis: builtin.IntAttr

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Parse `<"tp", 0>`."""
        with parser.in_angle_brackets():
            over = parser.parse_str_literal()
            parser.parse_punctuation(",")
            return [builtin.StringAttr(over), builtin.IntAttr(parser.parse_integer())]

    def print_parameters(self, printer: Printer) -> None:
        """Print `<"tp", 0>`."""
        with printer.in_angle_brackets():
            printer.print_string(f'"{self.over.data}", {self.axis.data}')


@irdl_attr_definition
class PartialAttr(ParametrizedAttribute):
    """`#dist.partial<"tp">`: a rank holds a summand of the value's shape."""

    name = "dist.partial"
    over: builtin.StringAttr


class _Collective(LostwaxOp):
    """Every rank of the mesh axis `over` runs it, in the same order as its other collectives."""

    def require_ranks(self, ranks: int) -> None:
        """One rank exchanges nothing."""
        self.require(ranks > 1, f"{ranks} ranks exchange nothing")


@irdl_op_definition
class AllReduceOp(_Collective):
    """The sum of all ranks' x, in f32 at least and rounded once to the result's dtype."""

    name = "dist.all_reduce"
    x = operand_def(PLAIN)
    over = prop_def(builtin.StringAttr)
    ranks = prop_def(builtin.IntegerAttr)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        self.require_ranks(self.ranks.value.data)
        self.require(self.shape(self.x) == self.shape(self.out), "a sum keeps the shape")

    def cost(self, env: Mapping[str, int]) -> Cost:
        """A ring sends and receives (n - 1)/n of x twice."""
        ranks = self.ranks.value.data
        sent = 2 * (ranks - 1) * type_bytes(self.x.type, env) // ranks
        sums = (ranks - 1) * product(self.shape(self.x)).at(env)
        return Cost(self.boundary_bytes(env) + sent, sums)


@irdl_op_definition
class AllGatherOp(_Collective):
    """All ranks' x behind one another along `axis`, in rank order."""

    name = "dist.all_gather"
    x = operand_def(PLAIN)
    over = prop_def(builtin.StringAttr)
    ranks = prop_def(builtin.IntegerAttr)
    axis = prop_def(builtin.IntegerAttr)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        ranks, axis, x = self.ranks.value.data, self.axis.value.data, self.shape(self.x)
        self.require_ranks(ranks)
        self.require(0 <= axis < len(x), f"axis {axis} is not one of {self.x.type}")
        want = (*x[:axis], x[axis] * Size.of(ranks), *x[axis + 1 :])
        self.require(self.shape(self.out) == want, f"result {self.out.type} has a wrong shape")
        self.require(self.dtype(self.x) == self.dtype(self.out), "slices keep their dtype")

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Every other rank's slice is received once, and everything is written once."""
        return Cost(self.boundary_bytes(env), 0)


DIST = Dialect("dist", [AllReduceOp, AllGatherOp], [SplitAttr, PartialAttr])
