"""Compiles the full V3.2 configuration without weights: seconds, memory, size, growth by layers.

`python benchmarks/compile_full.py --out FILE` runs each (target, layers) in a process of its own.
Its memory is sampled with that of the processes that it starts, pages that they share counted in
each. `cpu_s` is what all of them took of the cores: so a machine busy with other work shows.
`--drafts` and `--max-reqs` ask for more programs than the default has; each row says what it had.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

SAMPLE_S = 0.5
CONFIG = Path(__file__).parent.parent / "examples" / "deepseek-v3.2.json"


def compile_one(target: str, layers: int, drafts: int, max_reqs: int) -> dict[str, Any]:
    """Capture and compile in this process."""
    from lostwax.backends.compile import CompileOptions, compile_module
    from lostwax.backends.plan.sizes import Sizes
    from lostwax.frontend.capture import capture
    from lostwax.frontend.config import parse_config

    raw = json.loads(CONFIG.read_text())
    raw["num_hidden_layers"] = layers
    begin = time.perf_counter()
    captured = capture(parse_config(raw))
    capture_s = time.perf_counter() - begin
    capture_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as work:
        out = Path(work, "artifact")
        sizes = Sizes(max_context=163840, max_tokens=4096, max_reqs=max_reqs, max_drafts=drafts)
        options = CompileOptions(dtype="bf16", sizes=sizes)
        manifest = compile_module(
            captured.module, captured.facts, captured.weights, target, out, options
        )
        size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    return {
        "target": target,
        "layers": layers,
        "drafts": drafts,
        "max_reqs": max_reqs,
        "capture_s": round(capture_s, 2),
        "capture_peak_gib": round(capture_peak / 2**20, 2),
        "compile_s": round(time.perf_counter() - begin - capture_s, 2),
        "artifact_mib": round(size / 2**20, 2),
        "digest": manifest.digest,
        "programs": len(manifest.programs),
        "arena_mib": round(manifest.arena_bytes / 2**20, 1),
        "weight_gib": round(manifest.weight_bytes / 2**30, 1),
    }


def with_children(pid: int) -> list[int]:
    """The process and all that it has started, and they."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def memory_kib(pids: list[int]) -> int:
    """Resident memory of the processes; one that has ended has none."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
            total += int(pages) * resource.getpagesize() // 1024
    return total


def measured(command: list[str]) -> dict[str, Any]:
    """The row that the command prints, with the peak of its processes together and their time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, memory_kib(with_children(process.pid)))
            time.sleep(SAMPLE_S)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        assert process.stdout is not None
        row: dict[str, Any] = json.loads(process.stdout.read())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return row | {"peak_gib": round(peak / 2**20, 2), "cpu_s": round(cpu_s, 1)}


def main() -> None:
    """Run every pair, print, keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", nargs="+", default=["cpu", "cuda-sm90a"])
    parser.add_argument("--layers", nargs="+", type=int, default=[4, 61])
    parser.add_argument("--drafts", type=int, choices=range(4), default=0)
    parser.add_argument("--max-reqs", type=int, default=8, help="most requests of one step")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        target, layers = options.one
        row = compile_one(target, int(layers), options.drafts, options.max_reqs)
        print(json.dumps(row))
        return
    sizes = ["--drafts", str(options.drafts), "--max-reqs", str(options.max_reqs)]
    rows: list[dict[str, Any]] = []
    for target in options.targets:
        for layers in options.layers:
            command = [sys.executable, __file__, "--one", target, str(layers), *sizes]
            rows.append(measured(command))
            print(json.dumps(rows[-1]), flush=True)
    report = {
        "command": " ".join(["python", "benchmarks/compile_full.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
