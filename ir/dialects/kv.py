"""The `kv` dialect: writes to the paged cache, as values."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def, var_operand_def
from xdsl.traits import Pure

from lostwax.ir.fields import I32, PLAIN
from lostwax.ir.op import Cost, LostwaxOp, row_bytes
from lostwax.ir.types import CacheType


@irdl_op_definition
class AppendOp(LostwaxOp):
    """The cache with one row a token written at `slots` [T]: the rows' parts, in order.

    rows are [T, width] each, one a part of the cache's row. The result shares the operand's memory,
    so nothing may use the old value at or after the append.
    """

    name = "kv.append"
    cache_in = operand_def(CacheType)
    rows = var_operand_def(PLAIN)
    slots = operand_def(I32)
    out = result_def(CacheType)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        cache = self.cache(self.cache_in)
        self.require(self.out.type == cache, "the result has the cache's type")
        shapes = [self.shape(r) for r in self.rows]
        self.require(
            all(len(s) == 2 and s[:1] == self.shape(self.slots) for s in shapes),
            "rows [T, width] with one slot each are needed",
        )
        widths = tuple(s[1].constant for s in shapes)
        self.require(widths == cache.row, f"rows of {widths} do not fit cache rows {cache.row}")
        block = self.parent_block()
        late = [
            u.operation.name
            for u in self.cache_in.uses
            if u.operation is not self
            and block is not None
            and u.operation.parent_block() is block
            and block.get_operation_index(u.operation) > block.get_operation_index(self)
        ]
        self.require(not late, f"the old cache value is used after the append, by {late}")

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Rows in, rows out."""
        tokens = self.shape(self.slots)[0].at(env)
        return Cost(self.boundary_bytes(env) + tokens * row_bytes(self.cache(self.cache_in)), 0)


KV = Dialect("kv", [AppendOp])
