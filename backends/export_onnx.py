"""Writes one specialised graph of an artifact as an ONNX model with the checkpoint's weights.

Weights are streamed, a checkpoint tensor at a time, into one external data file beside the model.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import onnx
import torch
from msgspec import structs

from lostwax.backends.exported_graph import ExportError, graph_file
from lostwax.backends.plan.read_steps import held_steps, one_tensor
from lostwax.backends.plan.variants import Variant
from lostwax.backends.read_graph import read_graph
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.checkpoint_content import require_content
from lostwax.backends.runtime.form_tensor import form_sources
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, StoredFormat, scale_shape
from lostwax.ir.contract.weights import Source, StoredWeight, WeightPart
from lostwax.ir.onnx import OnnxModel, PlacedWeight, export_onnx


def _stored(placed: PlacedWeight, source: Source) -> StoredWeight:
    """What one checkpoint tensor gives to a placed weight."""
    scale = None if source.scale is None else structs.replace(FP8_BLOCKS, dtype=source.scale.dtype)
    stored = StoredFormat(dtype=source.dtype, scale=scale)
    held = placed.values_scale
    steps = held_steps(stored, placed.values_dtype, held)
    return StoredWeight(
        name=placed.name,
        dtype=placed.dtype,
        shape=source.shape if not placed.scale or held is None else scale_shape(held, source.shape),
        parts=(WeightPart(name=placed.name, dtype=source.dtype, shape=source.shape, scale=scale),),
        steps=(*steps, *one_tensor(stored, placed.values_dtype, held, placed.scale)),
    )


def _write_weights(
    file: BinaryIO,
    weights: Iterable[PlacedWeight],
    sources: Mapping[str, tuple[Source, ...]],
    checkpoint: Path,
) -> None:
    """Each weight's bytes at its offset: its sources one behind the other, which stacks them."""
    places = [(placed, source) for placed in weights for source in sources[placed.name]]
    tensors = form_sources(checkpoint, ((_stored(p, s), s) for p, s in places))
    last: PlacedWeight | None = None
    for (placed, _), tensor in zip(places, tensors, strict=True):
        if placed is not last:
            file.seek(placed.offset)
            last = placed
        file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


@contextmanager
def _both_or_nothing(out: Path) -> Generator[Path]:
    """A folder whose files take their places beside `out` when the block ends well."""
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield work
        for made in sorted(work.iterdir(), reverse=True):  # the data before the model
            os.replace(made, out.parent / made.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def export_artifact(
    artifact: Path, out: Path, variant: Variant, *, checkpoint: Path | None = None
) -> OnnxModel:
    """Write one variant's graph to `out` and `out`.data, once onnx's checker has passed it.

    Raises ExportError, ArtifactError, CheckpointMismatch, NotExportable and NoDecomposition.
    """
    if out.is_dir():
        raise ExportError(f"{out} is a folder; give -o a file, such as {out / 'model.onnx'}")
    reader = ArtifactReader(artifact)
    manifest = reader.manifest
    if manifest.world_size != 1:
        raise ExportError(
            f"{artifact} is one of {manifest.world_size} ranks' worth; compile it for one rank"
        )
    graph_file(manifest, variant.name)  # before torch and a checkpoint's weights
    guards = {ref.guard.selects_all: str(ref.guard) for ref in manifest.programs}
    metadata = {
        "lostwax.artifact": manifest.digest,
        "lostwax.graph": variant.name,
        "lostwax.guard": guards[True] if variant.every else "always",
        "lostwax.model": manifest.model.name,
        "lostwax.page_tokens": str(manifest.limits.page_tokens),
    }
    module = read_graph(reader, variant.name)
    model = export_onnx(module, variant.segment, f"{out.name}.data", metadata=metadata)
    sources = reader.weight_plan().sources
    missing = [w.name for w in model.weights if w.name not in sources]
    if missing:
        raise ExportError(
            f"the artifact knows no checkpoint tensor for {missing[0]}: it was compiled from a"
            " configuration alone; compile a checkpoint"
        )
    folder, note = reader.checkpoint(checkpoint), reader.note()
    require_content(folder, note.files if note else {})
    with _both_or_nothing(out) as work:
        with (work / f"{out.name}.data").open("wb") as file:
            _write_weights(file, model.weights, sources, folder)
        made = work / out.name
        made.write_bytes(model.proto.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(made), full_check=True)
    return model
