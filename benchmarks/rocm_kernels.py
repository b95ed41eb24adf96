"""What the code objects of an artifact for an AMD GPU take, and which matrix instructions they use.

    python benchmarks/rocm_kernels.py ARTIFACT [--out FILE.json]

Compiles each kernel's source once more for its assembly; runs none. A row is a binary: LDS of a
workgroup with its static part, vector registers of a lane (with those that only matrix units and
copies reach), registers that are spilled to memory, matrix instructions by name.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from lostwax.backends.gpu_kernels.triton_compiler import TritonCompiler
from lostwax.backends.rocm.hsaco import figures
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.kernel import KernelNote, KernelSource

MATRIX = re.compile(r"\bv_mfma_\w+")
WIDTHS = re.compile(r"\b(?:buffer|global)_load_\w+")
SIZES = ("BLOCK_ROWS", "BLOCK_N", "BLOCK_HEADS", "BLOCK_KEYS", "TERMS", "SUMMED", "SHARED")
"""Constants by which people tell binaries of one kernel apart."""


def in_order(source: KernelSource) -> KernelSource:
    """The source with its parameters as the kernel has them: a note has them by name."""
    names: list[str] = getattr(import_module(source.path), source.symbol).arg_names
    signature = {n: source.signature[n] for n in names if n in source.signature}
    return structs.replace(source, signature=signature)


def rows(artifact: Path) -> Iterator[dict[str, Any]]:
    """One a binary, by name."""
    target = ArtifactReader(artifact).manifest.target
    compiler = TritonCompiler("hip", target.arch, target.wave_size)
    for path in sorted((artifact / "kernels").glob("*.hsaco")):
        described = path.with_name(path.name + ".json").read_bytes()
        note = msgspec.json.decode(described, type=KernelNote)
        source = in_order(note.sources[0])
        text = compiler.text(source)
        yield {
            "kernel": note.symbol,
            "sizes": {name: source.constants[name] for name in SIZES if name in source.constants},
            "waves": note.num_warps,
            "lds_bytes": note.shared_bytes,
            **asdict(figures(path.read_bytes(), note.symbol)),
            "matrix": dict(Counter(MATRIX.findall(text))),
            "loads": dict(Counter(WIDTHS.findall(text))),
        }


def show(row: dict[str, Any]) -> str:
    """A line for people."""
    sizes = " ".join(f"{name}={value}" for name, value in row["sizes"].items())
    matrix = ", ".join(f"{count} {name}" for name, count in row["matrix"].items()) or "-"
    return (
        f"{row['kernel']:<22} {row['waves']:>2} waves {row['lds_bytes']:>6} B LDS"
        f" {row['registers']:>3} VGPR ({row['accumulators']:>3} acc)"
        f" {row['spilled']:>3} spilled  {matrix}  {sizes}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for row in rows(options.artifact):
        found.append(row)
        print(show(row), flush=True)
    spilling = sum(row["spilled"] > 0 for row in found)
    print(f"{len(found)} binaries, {spilling} of them spill")
    if options.out is not None:
        kept = {
            "command": " ".join(["python", "benchmarks/rocm_kernels.py", *sys.argv[1:]]),
            "kernels": found,
        }
        options.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
