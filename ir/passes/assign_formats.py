"""assign-formats: the dtype of activations and caches, and how weights are held.

The captured module is format-neutral: its bf16 stands for "the model's dtype". Knows what the
checkpoint stores only from `lostwax.stored` attributes; knows no target and no lowering.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.ir import Attribute
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriteWalker, TypeConversionPattern
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import PassFailedException

from lostwax.ir.types import DTYPES, BlockScaleAttr, CacheType, TensorType

ACTIVATION_DTYPES = ("bf16", "f32")
WEIGHT_CHOICES = ("stored", "dequantised")
MODEL_DTYPES = ("bf16", "f8E4M3FN", "f8E4M3FNUZ")  # what `dtype=f32` turns to f32
_STORED = re.compile(r"(?P<dtype>\w+)(:(?P<rows>\d+)x(?P<cols>\d+))?")


@dataclass(frozen=True)
class StoredFormat:
    """What `lostwax.stored` says: `bf16`, `f32`, or `f8E4M3FN:128x128` with f32 block scales."""

    dtype: str
    scale: BlockScaleAttr | None

    @staticmethod
    def parse(text: str, where: str) -> StoredFormat:
        """Parse the attribute's text; PassFailedException names the weight."""
        match = _STORED.fullmatch(text)
        known = match is not None and match["dtype"] in DTYPES
        if match is None or not known or ("f8" in match["dtype"]) != bool(match["rows"]):
            raise PassFailedException(
                f"assign-formats: {where} is stored as {text!r}; known are bf16, f32 and "
                "block-scaled fp8 such as 'f8E4M3FN:128x128'"
            )
        if not match["rows"]:
            return StoredFormat(match["dtype"], None)
        rows, cols = builtin.IntAttr(int(match["rows"])), builtin.IntAttr(int(match["cols"]))
        return StoredFormat(match["dtype"], BlockScaleAttr(rows, cols, builtin.f32))


class _EverythingF32(TypeConversionPattern):
    """Model-dtype tensors and caches become f32, wherever a type stands."""

    def convert_type(self, typ: Attribute, /) -> Attribute | None:
        if isinstance(typ, TensorType) and typ.dtype_name in MODEL_DTYPES:
            return TensorType.of(typ.sizes, "f32")
        if isinstance(typ, CacheType) and typ.layout.data == "bf16":
            return CacheType(
                typ.plane, typ.pages, typ.page_tokens, typ.parts, builtin.StringAttr("f32")
            )
        return None


def _stored_formats(function: func.FuncOp) -> dict[int, StoredFormat]:
    """The stored format of each weight argument, by argument index."""
    formats: dict[int, StoredFormat] = {}
    for index, attrs in enumerate(function.arg_attrs or ()):
        stored, weight = attrs.data.get("lostwax.stored"), attrs.data.get("lostwax.weight")
        if isinstance(stored, builtin.StringAttr):
            name = weight.data if isinstance(weight, builtin.StringAttr) else f"argument {index}"
            where = f"weight {name!r} of @{function.sym_name.data}"
            formats[index] = StoredFormat.parse(stored.data, where)
    return formats


def _hold_as_stored(function: func.FuncOp, formats: dict[int, StoredFormat]) -> None:
    """Give block-scaled weights their stored type; plain ones keep the nominal dtype."""
    changed = False
    for index, stored in formats.items():
        argument = function.body.block.args[index]
        if stored.scale is not None and isinstance(argument.type, TensorType):
            held = TensorType.of(argument.type.sizes, stored.dtype, stored.scale)
            Rewriter.replace_value_with_new_type(argument, held)
            changed = True
    if changed:
        function.update_function_type()


@dataclass(frozen=True)
class AssignFormatsPass(ModulePass):
    """`dtype=f32`: everything f32, weights dequantised at load. `dtype=bf16`: activations and
    caches bf16, weights as stored, or bf16 with `weights=dequantised`.
    """

    name: ClassVar[str] = "assign-formats"
    dtype: str = "bf16"
    weights: str = "stored"

    def __post_init__(self) -> None:
        for option, value, known in (
            ("dtype", self.dtype, ACTIVATION_DTYPES),
            ("weights", self.weights, WEIGHT_CHOICES),
        ):
            if value not in known:
                raise ValueError(f"assign-formats: {option}={value} is not one of {known}")

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        """Rewrite the types in place."""
        stored = [(f, _stored_formats(f)) for f in op.ops if isinstance(f, func.FuncOp)]
        if self.dtype == "f32":
            # one visit an op is enough: no conversion makes another possible
            pattern = _EverythingF32(recursive=True)
            PatternRewriteWalker(pattern, apply_recursively=False).rewrite_module(op)
        elif self.weights == "stored":
            for function, formats in stored:
                _hold_as_stored(function, formats)
