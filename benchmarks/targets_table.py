"""One captured graph, compiled for every target without its device: one table.

    python benchmarks/targets_table.py [CHECKPOINT] [--targets TARGET...] [--out FILE.json]

Without a checkpoint the trained one of models/tiny is taken (examples/tiny.json has attention of
sizes that CANN's operators do not take). Each target is compiled from the
same capture, then once more by `lostwax compile` in a process and a folder of its own, whose digest
must be the same. States come from `lostwax certify`: on the CPU target by running it; on the others
with --interpret, which runs the same sources here (Triton's interpreter, torch's CPU operators, the
CPU twins of Ascend's) and leaves `compiled` what only the device can run. Nothing here is a
device's speed. Lines of FILE that are of other targets and of the same graph stay there: each says
by which command and at which commit it was made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.formats import Formats
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.registry import find_target
from lostwax.cli.compile import default_activations
from lostwax.cli.default_model import default_checkpoint
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import Checkpoint, open_checkpoint
from lostwax.ir.contract.artifact import Manifest
from lostwax.server.gateway.tokenizer_file import read_tokenizer

TARGETS = (
    "cpu",
    "cuda-sm90a",
    "cuda-sm100a",
    "rocm-gfx942",
    "rocm-gfx950",
    "ascend-910b",
    "ascend-910_93",
)
ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
STATES = ("executed", "interpreted", "compiled")
SIZES = Sizes(max_context=320, max_tokens=16, max_reqs=2)
"""Small steps, as interpreting takes long; contexts beyond the 256 positions that are selected."""


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`lostwax ...` in a process of its own."""
    command = [sys.executable, "-m", "lostwax", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def digest_elsewhere(checkpoint: Path, target: str, out: Path) -> str:
    """The digest of a second compile, which reads and captures the checkpoint anew."""
    sizes = {"context": SIZES.max_context, "tokens": SIZES.max_tokens, "reqs": SIZES.max_reqs}
    given = [word for name, size in sizes.items() for word in (f"--max-{name}", str(size))]
    done = cli("compile", str(checkpoint), "--target", target, "-o", str(out), "--json", *given)
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


def default_options(opened: Checkpoint, captured: Captured, target: str) -> CompileOptions:
    """Those of `lostwax compile` without any option but the sizes."""
    backend, described = find_target(target)
    choice = default_activations(backend, described, captured.weights, "bf16")
    form = f"fp8_{opened.scale_fmt or 'fp32'}" if choice.form == "fp8" else choice.form
    reason = f"{choice.form}: {choice.reason}" if choice.reason else ""
    formats = Formats(activations=form)
    return CompileOptions(formats=formats, sizes=SIZES, activations_reason=reason)


def compile_once(
    captured: Captured, checkpoint: Path, target: str, out: Path, options: CompileOptions
) -> tuple[Manifest, float]:
    """The artifact of one target and its seconds; the capture is not counted."""
    begin = time.perf_counter()
    tokenizer = read_tokenizer(checkpoint)
    manifest = compile_module(
        captured.module, captured.facts, captured.weights, target, out, options, tokenizer
    )
    return manifest, time.perf_counter() - begin


def source_commit() -> str:
    """The commit of the sources, with `-dirty` behind it where they are changed.

    Raises SystemExit outside of a git checkout. Results are no sources.
    """
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
        changed = subprocess.check_output(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RESULTS}"]
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{ROOT} is no git checkout, and each line says its commit") from error
    return f"{commit}-dirty" if changed else commit


def row(
    captured: Captured, checkpoint: Path, target: str, work: Path, options: CompileOptions
) -> dict[str, Any]:
    """One target's line."""
    artifact = work / "first" / target
    manifest, seconds = compile_once(captured, checkpoint, target, artifact, options)
    again = digest_elsewhere(checkpoint, target, work / "second" / "folder" / target)
    kernels = {k.binary: k for k in manifest.kernels}.values()
    return {
        "target": target,
        "seconds": round(seconds, 1),
        "programs": len(manifest.programs),
        "kernels": len(kernels),
        "registers": _range([k.registers for k in kernels]),
        "shared_bytes": _range([k.shared_bytes + k.static_shared_bytes for k in kernels]),
        "states": dict(states(artifact, target)),
        "digest": manifest.digest,
        "same_elsewhere": again == manifest.digest,
    }


def _range(numbers: list[int]) -> str:
    """The least and the largest."""
    return f"{min(numbers)}-{max(numbers)}" if numbers else "-"


def show(line: dict[str, Any]) -> str:
    """A line for people."""
    found = line["states"]
    evidence = " ".join(f"{found.get(state, 0):>4}" for state in (*STATES, "wrong"))
    same = "yes" if line["same_elsewhere"] else "NO"
    return (
        f"{line['target']:<13} {line['seconds']:>7.1f} {line['programs']:>8} {line['kernels']:>7}"
        f" {line['registers']:>9} {line['shared_bytes']:>12} {evidence}"
        f"  {line['digest'][:12]} {same}"
    )


def kept_lines(path: Path | None, graph: str) -> dict[str, dict[str, Any]]:
    """By target, the lines of an earlier run over the same graph and sizes."""
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text())
    if (found.get("graph"), found.get("sizes")) != (graph, asdict(SIZES)):
        return {}
    return {line["target"]: line for line in found["targets"]}


def main() -> None:
    """The command line; exits with 1 if a digest differs or a lowering is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    commit = source_commit()  # before anything runs: sources may change meanwhile
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        checkpoint = options.checkpoint or default_checkpoint()
        begin = time.perf_counter()
        opened = open_checkpoint(checkpoint)
        captured = capture(opened)
        captured_s = time.perf_counter() - begin
        print(f"captured once in {captured_s:.1f} s; states: {', '.join(STATES)}", flush=True)
        print(
            "target        seconds programs kernels registers shared bytes exec intp comp wrong"
            "  digest       same"
        )
        graph = hashlib.sha256(str(captured.module).encode()).hexdigest()
        made_by = {
            "command": " ".join(["python", "benchmarks/targets_table.py", *sys.argv[1:]]),
            "commit": commit,
            "captured_seconds": round(captured_s, 1),
        }
        lines = kept_lines(options.out, graph)
        for target in options.targets:
            compiled_as = default_options(opened, captured, target)
            lines[target] = row(captured, checkpoint, target, work, compiled_as) | made_by
            print(show(lines[target]), flush=True)
            if options.out is not None:  # after each: the next may take minutes
                kept = {
                    "graph": graph,
                    "sizes": asdict(SIZES),
                    "targets": [lines[each] for each in TARGETS if each in lines],
                }
                options.out.write_text(json.dumps(kept, indent=1) + "\n")
    if any(not x["same_elsewhere"] or x["states"].get("wrong") for x in lines.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
