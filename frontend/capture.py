"""Captures the model once, block kind by block kind, on the meta device. Reads no weight data."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim, ExportedProgram, export
from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.ir import Attribute

from lostwax.frontend.assemble import assemble
from lostwax.frontend.block_kinds import BlockKind, block_kinds
from lostwax.frontend.checkpoint import PAGE_TOKENS, Checkpoint, model_facts
from lostwax.frontend.config import ModelConfig
from lostwax.frontend.formats import Formats, format_of_kind, nominal_formats
from lostwax.frontend.importer import DTYPE_NAMES, import_block
from lostwax.ir.contract.model import ModelFacts, WeightTable
from lostwax.ir.contract.step import HIDDEN
from lostwax.ir.dialects import context
from lostwax.ir.scale_layouts import STORED, StoredAttr

# Example sizes are all different and at least 2: torch takes 0 and 1 for constants. The capture
# holds for every size within the bounds.
SYMBOLS = {
    "T": (6, 1 << 16),
    "B": (3, 1 << 12),
    "P": (5, 1 << 16),
    "R": (9, 1 << 16),
    "N": (7, 1 << 24),
    "S": (11, 1 << 16),
    "M": (13, 1 << 16),
    "Q": (17, 1 << 16),
    "C": (19, 1 << 16),
}
TORCH_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True, slots=True)
class CaptureReport:
    """What the capture took. `peak_bytes` is the largest size that the process ever had."""

    seconds: float
    seconds_by_kind: Mapping[str, float]
    peak_bytes: int
    num_layers: int

    def __str__(self) -> str:
        kinds = ", ".join(f"{k} {s:.2f} s" for k, s in self.seconds_by_kind.items())
        return (
            f"captured {self.num_layers} layers as {len(self.seconds_by_kind)} block kinds in"
            f" {self.seconds:.2f} s ({kinds}); peak {self.peak_bytes / 2**20:.0f} MiB"
        )


@dataclass(frozen=True, slots=True)
class Captured:
    """The model as an IR module, with what compiling needs to know beside it."""

    module: builtin.ModuleOp
    facts: ModelFacts
    weights: WeightTable
    report: CaptureReport


def capture(source: Checkpoint | ModelConfig, page_tokens: int = PAGE_TOKENS) -> Captured:
    """Capture a checkpoint, or a bare configuration (then `weights` is empty)."""
    start = time.perf_counter()
    if isinstance(source, Checkpoint):
        config, formats, weights = source.config, source.formats, source.weights
        facts = source.facts(page_tokens)
    else:
        config, formats, weights = source, nominal_formats(source), {}
        facts = model_facts(source, source.digest, page_tokens)
    ctx = context()
    blocks: list[func.FuncOp] = []
    seconds: dict[str, float] = {}
    drafts = source.has_mtp
    for kind in block_kinds(config, page_tokens, drafts=drafts):
        begin = time.perf_counter()
        blocks.append(_capture_kind(ctx, kind, formats))
        seconds[kind.name] = time.perf_counter() - begin
    layers = [config.layer_kind(n) for n in range(config.num_hidden_layers)]
    module = assemble(blocks, layers, config.mtp_layers if drafts else ())
    module.verify()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report = CaptureReport(time.perf_counter() - start, seconds, peak, len(layers))
    return Captured(module, facts, weights, report)


def _capture_kind(ctx: Context, kind: BlockKind, formats: Formats) -> func.FuncOp:
    program = _export(kind)
    attrs: dict[str, dict[str, Attribute]] = {}
    for spec in program.graph_signature.input_specs:
        if spec.target is not None:
            stored = format_of_kind(formats, kind.name, kind.prefixes, spec.target)
            name = builtin.StringAttr(spec.target)
            attrs[spec.target] = {"lostwax.weight": name, STORED: StoredAttr.of(stored)}
    state = {"lostwax.state": HIDDEN} if kind.gives_hidden else {}
    return import_block(ctx, kind.name, program, kind.arguments, attrs, state)


def _export(kind: BlockKind) -> ExportedProgram:
    dims: dict[str, Any] = {n: Dim(n, min=1, max=most) for n, (_, most) in SYMBOLS.items()}
    dims["B + 1"] = dims["B"] + 1
    sizes = {n: example for n, (example, _) in SYMBOLS.items()}
    sizes["B + 1"] = sizes["B"] + 1
    with torch.device("meta"), torch.no_grad():
        module = kind.build()
        inputs = tuple(
            torch.zeros(
                [d if isinstance(d, int) else sizes[d] for d in shape],
                dtype=TORCH_DTYPES[kind.dtypes[name]],
            )
            for name, shape in kind.shapes.items()
        )
        dynamic = {
            name: {axis: dims[d] for axis, d in argument.dims.items()}
            for name, argument in kind.arguments.items()
        }
        return export(module, inputs, dynamic_shapes=dynamic)
