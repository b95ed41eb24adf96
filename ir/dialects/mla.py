"""The `mla` dialect: multi-head latent attention over the paged latent cache."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects import builtin
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from lostwax.ir.fields import I32, PLAIN
from lostwax.ir.op import Cost, LostwaxOp, row_bytes
from lostwax.ir.size import Size
from lostwax.ir.types import CacheType, TensorType


@irdl_op_definition
class AttendOp(LostwaxOp):
    """softmax(q k^T * scale) v over the selected cached positions of each row's request.

    q_nope [T, H, Dn], q_pe [T, H, R], kv_b [H*(Dn+Dv), C] (per head Dn key rows, then Dv value
    rows), cache rows c[C] || k_pe[R], selection [T, K] i32 (positions ascending, -1 tail),
    positions [T], q_starts [B+1], page_table [B, P] -> out [T, H*Dv].
    k_h = [c W_k,h^T || k_pe], v_h = c W_v,h^T. A row with nothing selected gives zeros.
    """

    name = "mla.attend"
    q_nope = operand_def(PLAIN)
    q_pe = operand_def(PLAIN)
    kv_b = operand_def(TensorType)
    cache_in = operand_def(CacheType)
    selection = operand_def(I32)
    positions = operand_def(I32)
    q_starts = operand_def(I32)
    page_table = operand_def(I32)
    scale = prop_def(builtin.FloatAttr)
    out = result_def(PLAIN)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        q, pe, kv_b = self.shape(self.q_nope), self.shape(self.q_pe), self.shape(self.kv_b)
        self.require(len(q) == 3 and q[:2] == pe[:2], "q_nope and q_pe differ in rows or heads")
        row = self.cache(self.cache_in).row
        self.require(
            len(row) == 2 and (Size.of(row[0]), Size.of(row[1])) == (kv_b[1], pe[2]),
            f"cache rows {row} do not fit kv_b {self.kv_b.type} and q_pe {self.q_pe.type}",
        )
        out = self.shape(self.out)
        heads, nope, width = q[1].constant, q[2].constant, out[1].constant
        rows = kv_b[0].constant
        self.require(
            heads is not None
            and nope is not None
            and width is not None
            and rows == heads * nope + width
            and out[0] == q[0],
            f"kv_b {self.kv_b.type} does not give {self.out.type} for {self.q_nope.type}",
        )
        self.require(
            self.shape(self.selection)[:1] == self.shape(self.positions) == q[:1],
            "one selection and one position a row are needed",
        )
        self.require_requests(self.q_starts, self.page_table)

    def cost(self, env: Mapping[str, int]) -> Cost:
        """The absorbed form: latent rows are read once per query row, kv_b once."""
        tokens, heads, nope = (s.at(env) for s in self.shape(self.q_nope))
        rope = self.shape(self.q_pe)[2].at(env)
        latent = self.shape(self.kv_b)[1].at(env)
        value = self.shape(self.out)[1].at(env) // heads
        cache, pages = self.cache(self.cache_in), self.shape(self.page_table)[1].at(env)
        keys = min(self.shape(self.selection)[1].at(env), pages * cache.page_tokens.data)
        absorb = 2 * tokens * heads * latent * (nope + value)
        attend = 2 * tokens * heads * keys * (2 * latent + rope)
        read = tokens * keys * row_bytes(cache)
        return Cost(self.boundary_bytes(env) + read, absorb + attend)


MLA = Dialect("mla", [AttendOp])
