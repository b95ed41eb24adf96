"""clean-up: removes dead ops and block kinds that nothing calls. Never fuses, folds or reorders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.passes import ModulePass
from xdsl.transforms.dead_code_elimination import region_dce

from lostwax.ir.dialects.core import CallOp


def _callees(function: func.FuncOp) -> set[str]:
    return {op.callee.root_reference.data for op in function.walk() if isinstance(op, CallOp)}


def _remove_uncalled(module: builtin.ModuleOp) -> None:
    """Drop functions that no entry calls. An entry is a function that calls; a module of block
    kinds alone keeps them all.
    """
    functions = [f for f in module.ops if isinstance(f, func.FuncOp)]
    callees = {f.sym_name.data: _callees(f) for f in functions}
    entries = [f for f in functions if callees[f.sym_name.data]]
    if not entries:
        return
    called = {name for names in callees.values() for name in names}
    for function in functions:
        if function not in entries and function.sym_name.data not in called:
            function.detach()
            function.erase()


@dataclass(frozen=True)
class CleanUpPass(ModulePass):
    """Dead code elimination in every function, then removal of uncalled functions.

    Cache writes stay: an append's result is returned by its function. Arguments stay too, because
    callers and cache aliases count them.
    """

    name: ClassVar[str] = "clean-up"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        """Rewrite in place."""
        region_dce(op.body)
        _remove_uncalled(op)
