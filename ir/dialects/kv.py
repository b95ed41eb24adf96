"""The `kv` dialect: writes to the paged cache, as values."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def, var_operand_def
from xdsl.traits import Pure

from lostwax.ir.fields import I32
from lostwax.ir.op import Cost, LostwaxOp, row_bytes
from lostwax.ir.types import CacheType, TensorType


@irdl_op_definition
class AppendOp(LostwaxOp):
    """The cache with one row a token written at `slots` [T]: the rows' parts, in order.

    rows are [T, width] each, one a part of the cache's row. Plain rows are rounded to the layout's
    dtype (fp8 saturates); a scaled layout stores the bytes of its first part, which comes as scaled
    fp8. The result shares the operand's memory, so nothing may use the old value at or after the
    append.
    """

    name = "kv.append"
    cache_in = operand_def(CacheType)
    rows = var_operand_def(TensorType)
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
        self._require_formats(cache)
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

    def _require_formats(self, cache: CacheType) -> None:
        """The scaled part comes with the layout's own encoding and blocks, the others plain."""
        for i, row in enumerate(self.rows):
            kind = row.type
            assert isinstance(kind, TensorType)  # the field's constraint
            scale, wanted = kind.block_scale, cache.form.scale_block if i == 0 else 0
            found = 0 if scale is None else scale.cols.data
            by_row = scale is None or scale.rows.data == 1
            encoded = scale is None or kind.dtype_name == cache.form.dtypes[0]
            self.require(
                found == wanted and by_row and encoded,
                f"row {i}, {kind}, does not fit layout {cache.layout.data!r} of {cache}",
            )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Rows in, rows out."""
        tokens = self.shape(self.slots)[0].at(env)
        return Cost(self.boundary_bytes(env) + tokens * row_bytes(self.cache(self.cache_in)), 0)


KV = Dialect("kv", [AppendOp])
