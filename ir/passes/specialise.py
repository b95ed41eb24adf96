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
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import PassFailedException

from lostwax.ir.dialects.core import CallOp
from lostwax.ir.dialects.dsa import AllOp, IndexLogitsOp, TopkOp
from lostwax.ir.size import Size
from lostwax.ir.types import SizeAttr

ENTRIES = ("extend", "decode", "draft")
STEP, STEP_SCORES, DRAFT = "step", "step_scores", "draft"


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


def _keep_entry(module: builtin.ModuleOp, kept: str, name: str) -> None:
    """Rename function `kept` to `name` and drop the other step functions."""
    functions = {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp)}
    if kept not in functions:
        has = ", ".join(f"@{f}" for f in functions) or "no function"
        raise PassFailedException(
            f"specialise: the module has no @{kept}, only {has}; capture the model first, and "
            "specialise a module once"
        )
    for other in {STEP, STEP_SCORES, DRAFT} - {kept}:
        if other in functions:
            functions[other].detach()
            functions[other].erase()
    functions[kept].sym_name = builtin.StringAttr(name)


def _is_state(function: func.FuncOp) -> list[bool]:
    """Which results outlive the step."""
    count = len(function.function_type.outputs)
    if function.res_attrs is None:
        return [False] * count
    return ["lostwax.state" in attrs.data for attrs in function.res_attrs.data]


def _drop_state(module: builtin.ModuleOp) -> None:
    """Take the results that outlive the step from every function and call."""
    functions = {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp)}
    dropped = {name: state for name, f in functions.items() if any(state := _is_state(f))}
    for name, state in dropped.items():
        function = functions[name]
        kept = [i for i, gone in enumerate(state) if not gone]
        returned = function.body.block.last_op
        assert isinstance(returned, func.ReturnOp)
        assert function.res_attrs is not None
        results = [returned.arguments[i] for i in kept]
        Rewriter.replace_op(returned, func.ReturnOp(*results))
        attrs = [function.res_attrs.data[i] for i in kept]
        function.res_attrs = builtin.ArrayAttr(attrs) if any(a.data for a in attrs) else None
        function.update_function_type()
    for call in [op for op in module.walk() if isinstance(op, CallOp)]:
        state = dropped.get(call.callee.root_reference.data)
        if state is not None:
            tensors = state[: len(call.res)]  # caches come behind and are no results of the call
            kept = [r for r, gone in zip(call.res, tensors, strict=True) if not gone]
            new = CallOp(
                operands=[list(call.arguments)],
                properties=dict(call.properties),
                result_types=[[r.type for r in kept]],
            )
            fresh = iter(new.res)
            Rewriter.replace_op(call, new, [None if gone else next(fresh) for gone in tensors])


@dataclass(frozen=True)
class SpecialisePass(ModulePass):
    """Keeps @step (@step_scores with `scores=true`), or @draft, as @ENTRY.

    `entry=decode` has T = rows*B, one row a request unless it verifies drafts. `all=true` assumes
    the guard max_kv <= index_topk. Without `state=true` nothing outlives a step, so that no draft
    can follow it.
    """

    name: ClassVar[str] = "specialise"
    entry: str
    all: bool = False
    scores: bool = False
    rows: int = 1
    state: bool = False

    def __post_init__(self) -> None:
        if self.entry not in ENTRIES:
            raise ValueError(f"specialise: entry={self.entry} is not one of {ENTRIES}")
        if self.rows < 1 or (self.rows > 1 and self.entry != "decode"):
            raise ValueError(
                f"specialise: rows={self.rows} needs entry=decode and at least one row"
            )

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        """Rewrite in place; dead index logits are left to clean-up."""
        main = STEP_SCORES if self.scores else STEP
        _keep_entry(op, DRAFT if self.entry == DRAFT else main, self.entry)
        if self.entry != DRAFT and not self.state:
            _drop_state(op)
        if self.entry == "decode":
            walker = PatternRewriteWalker(_RowsARequest(self.rows), apply_recursively=False)
            walker.rewrite_module(op)
        if self.all:
            PatternRewriteWalker(_SelectAll()).rewrite_module(op)
