"""How values are held beside the model's dtype: caches, indexer, activations. Rewrites nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xdsl.dialects import builtin
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from lostwax.ir.contract.target import Target
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.shard import ShardRefused


class UnsupportedFormat(ValueError):
    """The model's sizes or its checkpoint do not allow a format that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Options of `assign-formats` with their names there; `model` follows the model's dtype.

    `activations` never names int8: where a target has no fp8, `assign` rounds to that.
    `fp8`: the encoding of fp8 weights and activations, None for the target's own. `kv_b`: how that
    weight is held, None for the target's own choice (`_kv_b`). Where the target's kernels read the
    parts of cached rows apart, so they lie if `kv` is not said.
    """

    kv: str = "model"
    kv_scale: str = "fp32"
    indexer: str = "model"
    index_pages: str = "index_paged"
    activations: str = "model"
    fp8: str | None = None
    kv_b: str | None = None

    def assign(self, dtype: str, weights: str, target: Target) -> AssignFormatsPass:
        """The pass that gives a module these formats on a target.

        Raises UnsupportedFormat for what the target has no type for.
        """
        activations = self.activations
        if weights == "model" and dtype == "f32":
            weights = "dequantised"
        if lacks_fp8(target):
            if activations != "model":
                raise UnsupportedFormat(
                    f"target {target.name} has no fp8, so activations cannot be {activations}:"
                    " leave that out; they are rounded to int8"
                )
            if weights != "dequantised":
                weights, activations = "int8", "int8"
        elif weights == "int8" and "si8" not in target.dtypes:
            raise UnsupportedFormat(
                f"target {target.name} multiplies no int8 weights: leave --weights int8 out"
            )
        elif weights == "int8" and activations != "model":
            raise UnsupportedFormat(
                f"int8 weights meet activations as the dtype has them on {target.name}, not"
                f" {activations}: leave --activations out"
            )
        kv = self.kv
        if kv == "model" and target.parts_apart and dtype == "bf16":
            kv = "bf16_apart"
        return AssignFormatsPass(
            dtype=dtype,
            weights=weights,
            kv_b=self.kv_b or _kv_b(dtype, weights, target),
            fp8=self.fp8 or target.fp8_encoding or "f8E4M3FN",
            kv=kv,
            kv_scale=self.kv_scale,
            indexer=self.indexer,
            index_pages=self.index_pages,
            activations=activations,
        )


def _kv_b(dtype: str, weights: str, target: Target) -> str:
    """How kv_b is held: on devices plain, whose matrix units take it as it lies (33 MB a layer of
    DeepSeek-V3.2 instead of 17). On the host as others are, but for e4m3 beside bf16: there a
    kernel that decodes it takes as long as one that reads bf16 (`backends/cpu/README.md`)."""
    is_cheap = weights == "int8" or dtype == "f32"
    return "stored" if target.host_memory and is_cheap else "dequantised"


def lacks_fp8(target: Target) -> bool:
    """Whether a target has no fp8 at all: there weights stored so are held as int8."""
    return not any(dtype.startswith("f8") for dtype in target.dtypes)


def typed(
    module: builtin.ModuleOp, passes: tuple[ModulePass, ...], dump_dir: Path | None
) -> builtin.ModuleOp:
    """A copy of the captured module with formats, and of one rank if `passes` say so.

    Raises UnsupportedFormat and ShardRefused.
    """
    try:
        return run(module.clone(), passes, dump_dir)
    except ShardRefused:
        raise
    except PassFailedException as error:
        raise UnsupportedFormat(str(error)) from error
