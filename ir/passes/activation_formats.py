"""Rounds what meets 8-bit weights to their type, as the official linear does to fp8. Part of
assign-formats.

`mla.attend` reads kv_b itself and its queries stay as they are, so that absorbed and expanded forms
mean the same.
"""

from __future__ import annotations

from xdsl.dialects import builtin, func
from xdsl.ir import SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.passes.cache_formats import quantised
from lostwax.ir.scale_layouts import BlockScaleAttr
from lostwax.ir.types import TensorType


def _scale_of(weight: SSAValue) -> tuple[str, BlockScaleAttr] | None:
    """Encoding and blocks of a scaled weight."""
    kind = weight.type
    if isinstance(kind, TensorType) and kind.block_scale is not None:
        return kind.dtype_name, kind.block_scale
    return None


def quantise_activations(function: func.FuncOp, scale_fmt: str) -> int:
    """Quantise every activation that a scaled weight multiplies, once each; how many products."""
    made: dict[tuple[SSAValue, str, int], SSAValue] = {}
    count = 0
    for op in list(function.body.block.ops):
        if isinstance(op, LinearOp):
            scale = _scale_of(op.weight)
        elif isinstance(op, ExpertsOp):
            scale = _scale_of(op.gate)
        else:
            continue
        if scale is None:
            continue
        dtype, blocks = scale
        key = (op.x, dtype, blocks.cols.data)
        if key not in made:
            rounded = quantised(op.x, dtype, blocks.cols.data, scale_fmt)
            Rewriter.insert_op(rounded, InsertPoint.before(op))
            rounded.out.name_hint = op.x.name_hint
            made[key] = rounded.out
        op.operands[0] = made[key]
        if isinstance(op, ExpertsOp):
            op.properties["hidden_fmt"] = builtin.StringAttr(scale_fmt)
        count += 1
    return count
