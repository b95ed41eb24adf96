"""How many query heads a rank's attention has. Knows no lowering."""

from __future__ import annotations

from xdsl.dialects import builtin

from lostwax.ir.dialects.mla import AttendOp


def attention_heads(module: builtin.ModuleOp) -> int:
    """The most of a layer, 0 in a module without attention; of one rank where it is split."""
    found = (op.shape(op.q_nope)[1].constant for op in module.walk() if isinstance(op, AttendOp))
    return max((heads or 0 for heads in found), default=0)
