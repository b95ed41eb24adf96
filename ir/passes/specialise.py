"""specialise: one entry, and what its guard promises. Knows assumptions, never how programs run."""

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

from lostwax.ir.dialects.dsa import AllOp, IndexLogitsOp, TopkOp
from lostwax.ir.size import Size
from lostwax.ir.types import SizeAttr

ENTRIES = ("extend", "decode")
STEP, STEP_SCORES = "step", "step_scores"


class _OneRowARequest(TypeConversionPattern):
    """T becomes B wherever a dimension stands: decode has as many rows as requests."""

    def convert_type(self, typ: Attribute, /) -> Attribute | None:
        if isinstance(typ, SizeAttr) and "T" in typ.data.symbols:
            return SizeAttr(typ.data.substitute({"T": Size.of("B")}))
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


def _keep_entry(module: builtin.ModuleOp, kept: str, name: str) -> None:
    """Rename function `kept` to `name` and drop the other step function."""
    functions = {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp)}
    if kept not in functions:
        has = ", ".join(f"@{f}" for f in functions) or "no function"
        raise PassFailedException(
            f"specialise: the module has no @{kept}, only {has}; capture the model first, and "
            "specialise a module once"
        )
    for other in {STEP, STEP_SCORES} - {kept}:
        if other in functions:
            functions[other].detach()
            functions[other].erase()
    functions[kept].sym_name = builtin.StringAttr(name)


@dataclass(frozen=True)
class SpecialisePass(ModulePass):
    """Keeps @step (@step_scores with `scores=true`) as @ENTRY; `entry=decode` has T = B; `all=true`
    assumes the guard max_kv <= index_topk.
    """

    name: ClassVar[str] = "specialise"
    entry: str
    all: bool = False
    scores: bool = False

    def __post_init__(self) -> None:
        if self.entry not in ENTRIES:
            raise ValueError(f"specialise: entry={self.entry} is not one of {ENTRIES}")

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        """Rewrite in place; dead index logits are left to clean-up."""
        _keep_entry(op, STEP_SCORES if self.scores else STEP, self.entry)
        if self.entry == "decode":
            pattern = _OneRowARequest(recursive=True)
            PatternRewriteWalker(pattern, apply_recursively=False).rewrite_module(op)
        if self.all:
            PatternRewriteWalker(_SelectAll()).rewrite_module(op)
