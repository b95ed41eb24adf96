"""specialise: one segment under its guard's promises. Knows assumptions, never how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.ir import Attribute
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    TypeConversionPattern,
    op_type_rewrite_pattern,
)
from xdsl.utils.exceptions import PassFailedException

from lostwax.ir.contract.program import HEADS
from lostwax.ir.dialects.dsa import AllOp, IndexLogitsOp, TopkOp
from lostwax.ir.size import Size
from lostwax.ir.types import SizeAttr

FUNCTIONS = {"extend": "body", "decode": "body", "draft": "draft"} | {h: h for h in HEADS}
"""The captured function of each segment."""


class _RowsARequest(TypeConversionPattern):
    """T becomes a multiple of B wherever a dimension stands."""

    def __init__(self, rows: int) -> None:
        super().__init__(recursive=True)
        self.rows = rows

    def convert_type(self, typ: Attribute, /) -> Attribute | None:
        if isinstance(typ, SizeAttr) and "T" in typ.data.symbols:
            return SizeAttr(typ.data.substitute({"T": Size.of("B") * Size.of(self.rows)}))
        return None


class _SelectAll(RewritePattern):
    """`dsa.topk` gives every visible position where no request is longer than k."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: TopkOp, rewriter: PatternRewriter, /) -> None:
        logits = op.logits.owner
        if not isinstance(logits, IndexLogitsOp):
            raise PassFailedException(
                "specialise: dsa.topk reads logits that dsa.index_logits did not make, so its "
                "rows' positions are unknown; drop all=true"
            )
        everything = AllOp.create(
            operands=[logits.positions], result_types=[op.out.type], properties={"k": op.k}
        )
        rewriter.replace(op, everything)


def _keep(module: builtin.ModuleOp, kept: str, name: str) -> None:
    """Rename function `kept` to `name` and drop the other segments."""
    functions = {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp)}
    if kept not in functions:
        has = ", ".join(f"@{f}" for f in functions) or "no function"
        raise PassFailedException(
            f"specialise: the module has no @{kept}, only {has}; capture the model first, and "
            "specialise a module once"
        )
    for other in set(FUNCTIONS.values()) - {kept}:
        if other in functions:
            functions[other].detach()
            functions[other].erase()
    functions[kept].sym_name = builtin.StringAttr(name)


@dataclass(frozen=True)
class SpecialisePass(ModulePass):
    """Keeps the function of one segment as @SEGMENT: @body for extend and decode, @draft, a head.

    `segment=decode` has T = rows*B, one row a request unless it verifies drafts. `all=true` assumes
    the guard max_kv <= index_topk.
    """

    name: ClassVar[str] = "specialise"
    segment: str
    all: bool = False
    rows: int = 1

    def __post_init__(self) -> None:
        if self.segment not in FUNCTIONS:
            raise ValueError(f"specialise: segment={self.segment} is not one of {tuple(FUNCTIONS)}")
        if self.rows < 1 or (self.rows > 1 and self.segment != "decode"):
            raise ValueError(
                f"specialise: rows={self.rows} needs segment=decode and at least one row"
            )

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        """Rewrite in place; dead index logits are left to clean-up."""
        _keep(op, FUNCTIONS[self.segment], self.segment)
        if self.segment == "decode":
            walker = PatternRewriteWalker(_RowsARequest(self.rows), apply_recursively=False)
            walker.rewrite_module(op)
        if self.all:
            PatternRewriteWalker(_SelectAll()).rewrite_module(op)
