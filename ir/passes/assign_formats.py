"""assign-formats: the dtype of activations, how weights are held, the layouts of caches, and where
values are rounded to fp8.

The captured module is format-neutral: its bf16 stands for "the model's dtype". Knows what the
checkpoint stores only from `lostwax.stored` attributes; knows no target and no lowering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.ir import Attribute, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriteWalker, TypeConversionPattern
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import PassFailedException

from lostwax.ir.contract.cache_layout import in_encoding
from lostwax.ir.dialects.dsa import IndexLogitsOp
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.dialects.moe import ExpertsOp, RouteOp
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.passes.activation_formats import quantise_activations
from lostwax.ir.passes.cache_formats import set_caches
from lostwax.ir.scale_layouts import STORED, BlockScaleAttr, StoredAttr, TwoLevelScaleAttr
from lostwax.ir.types import CacheType, TensorType

ACTIVATION_DTYPES = ("bf16", "f32")
WEIGHT_CHOICES = ("model", "stored", "dequantised", "int8")
KV_B_CHOICES = ("stored", "dequantised")
FP8_ENCODINGS = ("f8E4M3FN", "f8E4M3FNUZ")
KV_LAYOUTS = ("model", "bf16", "f32", "fp8_656", "fp8_576", "bf16_apart")
SCALE_FMTS = ("fp32", "ue8m0")
INDEXER_DTYPES = ("model", "bf16", "f32", *(f"fp8_{fmt}" for fmt in SCALE_FMTS))
INDEX_PAGES = ("index_paged", "index_row")
ACTIVATIONS = ("model", "int8", *(f"fp8_{fmt}" for fmt in SCALE_FMTS))
INT8 = "si8"
MODEL_DTYPES = ("bf16", "f8E4M3FN", "f8E4M3FNUZ")  # what `dtype=f32` turns to f32


class _EverythingF32(TypeConversionPattern):
    """Model-dtype tensors and caches become f32, wherever a type stands."""

    def convert_type(self, typ: Attribute, /) -> Attribute | None:
        if isinstance(typ, TensorType) and typ.dtype_name in MODEL_DTYPES:
            return TensorType.of(typ.sizes, "f32")
        if isinstance(typ, CacheType) and typ.layout.data == "bf16":
            return typ.laid_out("f32")
        return None


def _stored_formats(function: func.FuncOp) -> dict[int, StoredAttr]:
    """The stored format of each weight argument, by argument index."""
    formats: dict[int, StoredAttr] = {}
    for index, attrs in enumerate(function.arg_attrs or ()):
        stored = attrs.data.get(STORED)
        if isinstance(stored, StoredAttr):
            if isinstance(stored.scale, TwoLevelScaleAttr):
                raise PassFailedException(
                    f"assign-formats: {_where(function, index)} is stored as {stored.format};"
                    " nothing reads that: dequantise the checkpoint"
                )
            formats[index] = stored
    return formats


def _where(function: func.FuncOp, index: int) -> str:
    weight = function.arg_attrs.data[index].data.get("lostwax.weight") if function.arg_attrs else 0
    name = weight.data if isinstance(weight, builtin.StringAttr) else f"argument {index}"
    return f"weight {name!r} of @{function.sym_name.data}"


def _is_absorbed(argument: SSAValue) -> bool:
    """Whether it is the kv_b of an attention."""
    return any(
        isinstance(use.operation, AttendOp) and use.operation.kv_b is argument
        for use in argument.uses
    )


def _is_product(argument: SSAValue) -> bool:
    """Whether it is a weight of experts, an attention's kv_b, or a product's whose result is more
    than a choice: what the official checkpoint stores in fp8, the MTP layer's projection and the
    head."""
    return _is_absorbed(argument) or any(
        (isinstance(op, ExpertsOp) and argument in (op.gate, op.up, op.down))
        or (isinstance(op, LinearOp) and op.weight is argument and not _chooses(op))
        for op in (use.operation for use in argument.uses)
    )


def _chooses(op: LinearOp) -> bool:
    """Of the router or the indexer's heads: what it gives chooses experts or positions."""
    return any(isinstance(use.operation, RouteOp | IndexLogitsOp) for use in op.out.uses)


def _columns(kind: TensorType) -> int:
    columns = kind.sizes[-1].constant
    assert columns is not None  # a weight's
    return columns


def _hold_scaled(
    function: func.FuncOp, weights: dict[int, StoredAttr], encoding: str, keep_kv_b: bool
) -> None:
    """Give weights f32 scales: in an fp8 encoding of their stored blocks, in si8 of their rows.
    All others, and kv_b unless it is kept, have the nominal dtype.
    """
    changed = False
    for index, stored in weights.items():
        argument = function.body.block.args[index]
        if not keep_kv_b and _is_absorbed(argument):
            continue
        if not isinstance(argument.type, TensorType):
            continue
        if encoding == INT8:
            rows, cols = builtin.IntAttr(1), builtin.IntAttr(_columns(argument.type))
        elif isinstance(stored.scale, BlockScaleAttr):
            rows, cols = stored.scale.rows, stored.scale.cols
        else:
            raise PassFailedException(
                f"assign-formats: {_where(function, index)} is stored as {stored.format}, which no"
                " op multiplies; give weights=dequantised"
            )
        scale = BlockScaleAttr(rows, cols, builtin.f32)
        held = TensorType.of(argument.type.sizes, encoding, scale)
        Rewriter.replace_value_with_new_type(argument, held)
        changed = True
    if changed:
        function.update_function_type()


@dataclass(frozen=True)
class AssignFormatsPass(ModulePass):
    """`dtype=f32`: activations, caches and plain values f32; `dtype=bf16`: bf16.

    `weights`: `model` leaves to the dtype how those are held that are stored as fp8: in f32
    dequantised, else as stored. `stored`, `dequantised`: so with either dtype; `kv_b=dequantised`
    makes only the attention's kv_b plain, whose input is never rounded. `int8`: products' weights
    and kv_b become si8 with a scale a row, whatever they are stored as; with `activations=int8`
    only those that are stored as fp8, but kv_b plain, and what they multiply is rounded to si8 with
    a scale a token.

    `fp8`: the encoding in which fp8 weights are held, activations rounded and caches written.
    `kv`: layout of the latent cache (`kv_scale` for fp8_656). `indexer`: dtype of index queries and
    keys, fp8 with either rounding of scales; then keys lie as `index_pages` says. `activations`:
    what fp8 weights multiply is rounded to fp8 first. `model` stands for the model's dtype.
    """

    name: ClassVar[str] = "assign-formats"
    dtype: str = "bf16"
    weights: str = "model"
    kv_b: str = "stored"
    fp8: str = "f8E4M3FN"
    kv: str = "model"
    kv_scale: str = "fp32"
    indexer: str = "model"
    index_pages: str = "index_paged"
    activations: str = "model"

    def __post_init__(self) -> None:
        for option, value, known in (
            ("dtype", self.dtype, ACTIVATION_DTYPES),
            ("weights", self.weights, WEIGHT_CHOICES),
            ("kv_b", self.kv_b, KV_B_CHOICES),
            ("fp8", self.fp8, FP8_ENCODINGS),
            ("kv", self.kv, KV_LAYOUTS),
            ("kv_scale", self.kv_scale, SCALE_FMTS),
            ("indexer", self.indexer, INDEXER_DTYPES),
            ("index_pages", self.index_pages, INDEX_PAGES),
            ("activations", self.activations, ACTIVATIONS),
        ):
            if value not in known:
                raise ValueError(f"assign-formats: {option}={value} is not one of {known}")

        rounds_to_int8 = self.activations == "int8"
        if self.activations != "model" and rounds_to_int8 != (self.weights == "int8"):
            raise ValueError(
                f"assign-formats: activations={self.activations} does not go with weights="
                f"{self.weights}: both are int8, or neither"
            )

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        """Rewrite the types in place."""
        held = [self._scaled(f) for f in op.ops if isinstance(f, func.FuncOp)]
        if self.dtype == "f32":
            # one visit an op is enough: no conversion makes another possible
            pattern = _EverythingF32(recursive=True)
            PatternRewriteWalker(pattern, apply_recursively=False).rewrite_module(op)
        functions = [f for f in op.ops if isinstance(f, func.FuncOp)]  # the walker makes new ones
        encoding = INT8 if self.weights == "int8" else self.fp8
        keep_kv_b = self.kv_b == "stored" and self.activations != "int8"
        for function, weights in zip(functions, held, strict=True):
            _hold_scaled(function, weights, encoding, keep_kv_b)
        for function in functions:
            set_caches(function, self._latent(), self._index_keys())
        if self.activations != "model":
            self._quantise_activations(functions)

    def _scaled(self, function: func.FuncOp) -> dict[int, StoredAttr]:
        """The weight arguments that are held with scales."""
        formats = _stored_formats(function)
        if self.weights == "dequantised" or (self.weights == "model" and self.dtype == "f32"):
            return {}
        arguments = function.body.block.args
        becomes_int8 = self.weights == "int8" and self.activations == "model"
        return {
            index: stored
            for index, stored in formats.items()
            if not isinstance(stored.scale, builtin.NoneAttr)
            or (becomes_int8 and _is_product(arguments[index]))
        }

    def _latent(self) -> tuple[str, str] | None:
        return None if self.kv == "model" else (in_encoding(self.kv, self.fp8), self.kv_scale)

    def _index_keys(self) -> tuple[str, str] | None:
        if self.indexer == "model":
            return None
        kind, _, scale_fmt = self.indexer.partition("_")
        pages = in_encoding(self.index_pages, self.fp8)
        return (pages, scale_fmt) if kind == "fp8" else (self.indexer, "")

    def _quantise_activations(self, functions: list[func.FuncOp]) -> None:
        if self.activations == "int8":  # a checkpoint may have none, and stays as it is
            for function in functions:
                quantise_activations(function, "fp32")
            return
        scale_fmt = self.activations.removeprefix("fp8_")
        if not sum(quantise_activations(f, scale_fmt) for f in functions):
            raise PassFailedException(
                f"assign-formats: activations={self.activations} rounds what fp8 weights multiply, "
                "but no weight is held in fp8; it needs an FP8 checkpoint, and dtype=bf16 or "
                "weights=stored"
            )
