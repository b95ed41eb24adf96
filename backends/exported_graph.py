"""Which graph of an artifact an export takes. Reads none, imports no torch."""

from __future__ import annotations

from pathlib import Path

from lostwax.ir.contract.artifact import Manifest


class ExportError(ValueError):
    """The artifact has no such graph, or no checkpoint to take weights from."""


def graph_file(manifest: Manifest, name: str) -> str:
    """The file of the graph that has this name (`Variant.name`); ExportError lists those it has."""
    file = f"graphs/{name}.mlir"
    if file not in manifest.files:
        has = {Path(f).stem for f in manifest.files if f.startswith("graphs/")} - {"captured"}
        raise ExportError(f"the artifact has no graph {name}; it has {', '.join(sorted(has))}")
    return file
