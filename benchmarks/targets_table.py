"""One captured graph, compiled for every target without its device: one table.

    python benchmarks/targets_table.py [CHECKPOINT] [--out FILE.json]

Without a checkpoint a random one of examples/tiny.json is made. Each target is compiled from the
same capture, then once more by `lostwax compile` in a process and a folder of its own, whose digest
must be the same. States come from `lostwax certify`: on the CPU target by running it; on GPU
targets with --interpret, which runs the same sources here (Triton's interpreter, torch's CPU
operators) and leaves `compiled` what only the device can run. Nothing here is a device's speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.contract.artifact import Manifest

TARGETS = ("cpu", "cuda-sm90a", "cuda-sm100a", "rocm-gfx942", "rocm-gfx950")
STATES = ("executed", "interpreted", "compiled")
TINY = Path(__file__).parent.parent / "examples" / "tiny.json"


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`lostwax ...` in a process of its own."""
    command = [sys.executable, "-m", "lostwax", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def digest_elsewhere(checkpoint: Path, target: str, out: Path) -> str:
    """The digest of a second compile, which reads and captures the checkpoint anew."""
    done = cli("compile", str(checkpoint), "--target", target, "-o", str(out), "--json")
    if done.returncode:
        raise RuntimeError(done.stderr)
    return str(json.loads(done.stdout)["digest"])


def states(artifact: Path, target: str) -> Counter[str]:
    """How many places have which state of evidence; `wrong` counts disagreements."""
    done = cli("certify", str(artifact), "--json", *(() if target == "cpu" else ("--interpret",)))
    found: Counter[str] = Counter()
    for line in done.stdout.splitlines():
        certificate = json.loads(line)["certificate"]
        found["wrong" if certificate is None else certificate["state"]] += 1
    if not found:
        raise RuntimeError(done.stderr)
    return found


def compile_once(captured: Captured, target: str, out: Path) -> tuple[Manifest, float]:
    """The artifact of one target and its seconds; the capture is not counted."""
    begin = time.perf_counter()
    manifest = compile_module(
        captured.module, captured.facts, captured.weights, target, out, CompileOptions()
    )
    return manifest, time.perf_counter() - begin


def row(captured: Captured, checkpoint: Path, target: str, work: Path) -> dict[str, Any]:
    """One target's line."""
    artifact = work / "first" / target
    manifest, seconds = compile_once(captured, target, artifact)
    again = digest_elsewhere(checkpoint, target, work / "second" / "folder" / target)
    kernels = {k.binary: k for k in manifest.kernels}.values()
    return {
        "target": target,
        "seconds": round(seconds, 1),
        "programs": len(manifest.programs),
        "kernels": len(kernels),
        "registers": sorted(k.registers for k in kernels),
        "shared_bytes": sorted(k.shared_bytes + k.static_shared_bytes for k in kernels),
        "states": dict(states(artifact, target)),
        "digest": manifest.digest,
        "same_elsewhere": again == manifest.digest,
    }


def _range(numbers: list[int]) -> str:
    return f"{numbers[0]}-{numbers[-1]}" if numbers else "-"


def show(line: dict[str, Any]) -> str:
    """A line for people."""
    found = line["states"]
    evidence = " ".join(f"{found.get(state, 0):>4}" for state in (*STATES, "wrong"))
    same = "yes" if line["same_elsewhere"] else "NO"
    return (
        f"{line['target']:<12} {line['seconds']:>7.1f} {line['programs']:>8} {line['kernels']:>7}"
        f" {_range(line['registers']):>9} {_range(line['shared_bytes']):>12} {evidence}"
        f"  {line['digest'][:12]} {same}"
    )


def main() -> None:
    """The command line; exits with 1 if a digest differs or a lowering is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        checkpoint = options.checkpoint
        if checkpoint is None:
            checkpoint = work / "tiny"
            new_checkpoint(TINY, checkpoint, seed=0, format="fp8")
        begin = time.perf_counter()
        captured = capture(open_checkpoint(checkpoint))
        print(f"captured once in {time.perf_counter() - begin:.1f} s; states: {', '.join(STATES)}")
        print(
            "target       seconds programs kernels registers shared bytes exec intp comp wrong"
            "  digest       same"
        )
        lines: list[dict[str, Any]] = []
        for target in TARGETS:
            lines.append(row(captured, checkpoint, target, work))
            print(show(lines[-1]), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(lines, indent=1) + "\n")
    if any(not x["same_elsewhere"] or x["states"].get("wrong") for x in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
