"""What code objects for an AMD GPU take, and which matrix instructions they use.

    python benchmarks/rocm_kernels.py [ARTIFACT] [--target rocm-gfx950] [--out FILE.json]

Of an artifact, or of five layers of V3.2 at full width in the official formats as they are planned
for a target. Compiles each kernel's source for its assembly; runs none. A row is a binary: LDS of a
workgroup with its static part, vector registers of a lane (with those that only matrix units and
copies reach), registers that are spilled to memory, matrix instructions by name.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from coverage_table import FORMATS
from full_width import config_of
from msgspec import structs

from lostwax.backends.compile import CompileOptions, plan_module
from lostwax.backends.gpu_kernels.triton_compiler import TritonCompiler
from lostwax.backends.plan.emit import emit_program
from lostwax.backends.plan.kernel_requests import KernelRequests
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.rocm.hsaco import figures
from lostwax.backends.rocm.target import TARGETS
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.kernel import KernelNote, KernelSource
from lostwax.ir.contract.step_layout import StepLayout
from lostwax.ir.contract.target import Target

MATRIX = re.compile(r"\bv_mfma_\w+")
WIDTHS = re.compile(r"\b(?:buffer|global)_load_\w+")
CONSTANTS = (
    "BLOCK_ROWS",
    "BLOCK_N",
    "BLOCK_HEADS",
    "BLOCK_KEYS",
    "TERMS",
    "SUMMED",
    "SHARED",
    "TILE_ROWS",
    "MASKED",
)
"""Constants by which people tell binaries of one kernel apart."""
SIZES = Sizes(max_context=8192, max_tokens=512, max_reqs=16)


def in_order(source: KernelSource) -> KernelSource:
    """The source with its parameters as the kernel has them: a note has them by name."""
    names: list[str] = getattr(import_module(source.path), source.symbol).arg_names
    signature = {n: source.signature[n] for n in names if n in source.signature}
    return structs.replace(source, signature=signature)


def of_artifact(artifact: Path) -> tuple[Target, list[KernelSource]]:
    """What its binaries were compiled from, in the order of their names."""
    found: list[KernelSource] = []
    for path in sorted((artifact / "kernels").glob("*.hsaco")):
        described = path.with_name(path.name + ".json").read_bytes()
        found.append(in_order(msgspec.json.decode(described, type=KernelNote).sources[0]))
    return ArtifactReader(artifact).manifest.target, found


def of_plan(target: str) -> tuple[Target, list[KernelSource]]:
    """What the programs of `full_width.py compile` in the official formats launch, and the kernels
    of the step around them."""
    captured = capture(parse_config(config_of(5, 1)))
    options = CompileOptions(formats=FORMATS["official"], sizes=SIZES)
    plan = plan_module(captured.module, captured.facts, target, options)
    requests = KernelRequests(plan.backend, plan.target)
    programs = [
        emit_program(
            context, {n: covers[n] for n in context.blocks}, plan.storage, requests.request
        )
        for context, covers in zip(plan.contexts, plan.covers, strict=True)
    ]
    assert plan.backend.step is not None
    layout, page_tokens = StepLayout.of(plan.limits), captured.facts.page_tokens
    step = plan.backend.load(plan.backend.step)(layout, page_tokens, plan.target, requests.request)
    for program in programs:
        step.before(program)
        step.behind(program)
    return plan.target, sorted(requests.sources, key=lambda source: (source.symbol, repr(source)))


def row(compiler: TritonCompiler, source: KernelSource) -> dict[str, Any]:
    """One binary."""
    binary, shared = compiler.compile(source)
    text = compiler.text(source)
    return {
        "kernel": source.symbol,
        "sizes": {name: source.constants[name] for name in CONSTANTS if name in source.constants},
        "waves": source.num_warps,
        "lds_bytes": shared,
        **asdict(figures(binary, source.symbol)),
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
    parser.add_argument("artifact", type=Path, nargs="?")
    parser.add_argument("--target", default="rocm-gfx942", choices=[t.name for t in TARGETS])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    artifact = options.artifact
    target, sources = of_plan(options.target) if artifact is None else of_artifact(artifact)
    compiler = TritonCompiler("hip", target.arch, target.wave_size)
    found: list[dict[str, Any]] = []
    for source in sources:
        found.append(row(compiler, source))
        print(show(found[-1]), flush=True)
    spilling = sum(row["spilled"] > 0 for row in found)
    print(f"{len(found)} binaries, {spilling} of them spill")
    if options.out is not None:
        write(options.out, found)


def write(out: Path, found: list[dict[str, Any]]) -> None:
    """The rows, a line each."""
    head = {"command": " ".join(["python", "benchmarks/rocm_kernels.py", *sys.argv[1:]])}
    rows = ",\n".join(f"  {json.dumps(row)}" for row in found)
    out.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "kernels": [\n{rows}\n ]\n}}\n')


if __name__ == "__main__":
    main()
