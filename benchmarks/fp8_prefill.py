"""Checks and times fp8 products of many rows at full width: Hopper's own kernel beside Triton's.

    python benchmarks/fp8_prefill.py compile FOLDER             # needs Triton and nvcc, no GPU
    python benchmarks/fp8_prefill.py run FOLDER --out DIR       # needs the GPU, no compiler

Both take `--only TEXT`. All settings of a case are checked against the fp64 reference as those of
`fp8_products.py` are, then timed in turns, so that the device's clocks are the same for all: graph
replays over weights that do not fit the L2 cache. The cases run in a process of their own, which
writes each line as it comes (`fp8_prefill.jsonl`); one that ends or says nothing for long is
started again behind the setting that it was at.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from fp8_cases import EXPERTS, GATED, LINEAR, PROJECTIONS, Knobs, ProductCase
from fp8_products import Built, BuiltCase, BuiltSetting, Runner, compile_cases, rates

LINES = "fp8_prefill.jsonl"
SILENCE_S = 25.0
RESTARTS = 4
ROUNDS = 5
GRAPH_S = 2e-3
ALL_EXPERTS = (256, *EXPERTS[1:])
"""Of a model on one GPU: 64 pairs an expert at 2,048 rows."""

_LINEAR: tuple[Knobs, ...] = (
    {}, {"parts": 2}, {"dynamic": 1}, {"parts": 2, "dynamic": 1}, {"cluster": 1},
    {"turns": 8, "dynamic": 1},
)  # fmt: skip
_BROAD: tuple[Knobs, ...] = ({}, {"dynamic": 1}, {"cluster": 1, "dynamic": 1}, {"turns": 8})


def cases() -> Iterator[ProductCase]:
    """Edge contents first, then 2,048 rows, where the step was timed, then the others."""
    for form in ("fp8", "bf16"):
        yield _case("linear", "q_a+kv_a", LINEAR["q_a+kv_a"], 512, form, _LINEAR, real=333)
        yield _case("gated", "shared expert", GATED["shared expert"], 512, form, _BROAD, real=333)
        yield _case("projections", "projections", PROJECTIONS, 512, form, _LINEAR, real=60)
        for choice in ("one takes all", "holes"):
            yield _case("experts", "experts", EXPERTS, 256, form, _BROAD, real=200, choice=choice)
    for rows in (2048, 4096, 1024, 512, 256):
        for form in ("fp8", "bf16"):
            for label, shape in LINEAR.items():
                yield _case("linear", label, shape, rows, form, _LINEAR)
            for label, shape in GATED.items():
                yield _case("gated", label, shape, rows, form, _BROAD)
            yield _case("projections", "projections", PROJECTIONS, rows, form, _LINEAR)
            yield _case("experts", "experts", EXPERTS, rows, form, _BROAD)
            if rows == 2048:
                yield _case("experts", "all experts", ALL_EXPERTS, rows, form, _BROAD)


def _case(
    op: str, label: str, shape: tuple[int, ...], rows: int, form: str, many_rows: tuple[Knobs, ...],
    real: int | None = None, choice: str = "even",
) -> ProductCase:  # fmt: skip
    return ProductCase(
        op=op, label=label, shape=shape, rows=rows, real=real or rows, form=form, choice=choice,
        many_rows=many_rows, timed=real is None,
    )  # fmt: skip


class Turns(Runner):
    """Runs the cases' settings that a file of lines does not have yet, and adds its own."""

    def __init__(self, folder: Path, built: Built, until: float, lines: Path) -> None:
        super().__init__(folder, built, until)
        self._lines = lines
        self._begun = {key_of(line) for line in read_lines(lines)}

    def _write(self, line: dict[str, Any]) -> None:
        with self._lines.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def run(self, built: BuiltCase) -> bool:
        """Check every setting, then time the right ones in turns; True if all are right."""
        case = built.case
        left = [s for s in built.settings if _key(case, s) not in self._begun]
        if not left:
            return True
        drawn = self.draw_case(built)
        found: list[dict[str, Any]] = []
        graphs: list[tuple[dict[str, Any], Callable[[], None], int]] = []
        for setting in left:
            self._write({"begun": case.name, "lowering": setting.lowering, "knobs": setting.knobs})
            row, calls = self.check(case, setting, drawn)
            found.append(row)
            if row["right"] and case.timed:
                graphs.append((row, *self._captured(calls)))
            else:
                self._write(row)
        for row, us in zip((g[0] for g in graphs), self._timed(graphs), strict=True):
            row |= rates(case, drawn.own, us)
            self._write(row)
        _print_case(case, found)
        return all(row["right"] for row in found)

    def _captured(self, calls: Sequence[Callable[[], None]]) -> tuple[Callable[[], None], int]:
        """A graph that runs the calls for GRAPH_S, and how many it has."""
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for call in calls:
            call()
        stop.record()
        stop.synchronize()
        whole = max(1e-3 * start.elapsed_time(stop), 1e-6)
        rounds = max(1, round(GRAPH_S / whole))
        return self.driver.capture([*calls] * rounds), rounds * len(calls)

    @staticmethod
    def _timed(graphs: list[tuple[dict[str, Any], Callable[[], None], int]]) -> list[float]:
        """Median microseconds of a call of each, replayed one after another in every round."""
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        times: list[list[float]] = [[] for _ in graphs]
        for _ in range(ROUNDS + 1):
            for mine, (_, replay, count) in zip(times, graphs, strict=True):
                start.record()
                replay()
                stop.record()
                stop.synchronize()
                mine.append(1e3 * start.elapsed_time(stop) / count)
        return [statistics.median(mine[1:]) for mine in times]


def _key(case: ProductCase, setting: BuiltSetting) -> str:
    return json.dumps([case.name, setting.lowering, setting.knobs], sort_keys=True)


def key_of(line: dict[str, Any]) -> str:
    """Which setting of which case a line is of."""
    name = line.get("begun") or line["case"]
    return json.dumps([name, line["lowering"], line["knobs"]], sort_keys=True)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of the file, which may have no end yet."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _print_case(case: ProductCase, found: list[dict[str, Any]]) -> None:
    for row in sorted(found, key=lambda row: row.get("us", 0.0)):
        knobs = " ".join(f"{k}={v}" for k, v in row["knobs"].items()) or "by rule"
        rate = f"{row['us']:9.2f} us {row['tflops']:7.1f} TF" if "us" in row else " " * 23
        verdict = "right" if row["right"] else f"WRONG {row['wrong']}"
        name = row["lowering"].split("_")[0]
        print(f"{case.name:<34} {rate} {row['error']:.1e} {verdict} {name} {knobs}", flush=True)


def run_child(folder: Path, lines: Path, only: str, budget_s: float) -> None:
    """Run what the file of lines does not have, until the time is over."""
    built = msgspec.json.decode((folder / "cases.json").read_bytes(), type=Built)
    torch.backends.cuda.matmul.allow_tf32 = False
    runner = Turns(folder, built, time.perf_counter() + budget_s, lines)
    print(torch.cuda.get_device_name(), "torch", torch.__version__, flush=True)
    for item in built.cases:
        if only not in item.case.name:
            continue
        if runner.left_s < 3:
            print("out of time", flush=True)
            return
        try:
            runner.run(item)
        except torch.cuda.OutOfMemoryError as error:
            print(f"left out {item.case.name}: {error}", flush=True)


def run_guarded(folder: Path, out: Path, only: str, budget_s: float) -> bool:
    """Start the child until it has run all or the time is over; True if every setting is right."""
    until = time.perf_counter() + budget_s
    out.mkdir(parents=True, exist_ok=True)
    lines = out / LINES
    lines.unlink(missing_ok=True)
    for _ in range(1 + RESTARTS):
        left = until - time.perf_counter()
        if left < 8:
            break
        before = len(read_lines(lines))
        command = [sys.executable, __file__, "child", str(folder), "--out", str(out)]
        command += ["--only", only, "--budget", str(left)]
        if _run_until_silent(command, lines, until + 5) or len(read_lines(lines)) == before:
            break
    found = read_lines(lines)
    answered = {key_of(line) for line in found if "case" in line}
    lost = [line for line in found if "begun" in line and key_of(line) not in answered]
    wrong = [line for line in found if "case" in line and not line["right"]]
    for line in lost:
        print("NO ANSWER", key_of(line))
    print(f"{len(answered)} settings, {len(wrong)} wrong, {len(lost)} without an answer")
    return bool(answered) and not wrong and not lost


def _run_until_silent(command: list[str], lines: Path, until: float) -> bool:
    """Whether the child ended by itself and well; one without a new line for long is ended."""
    with subprocess.Popen(command) as child:
        size, heard = -1, time.perf_counter()
        while child.poll() is None:
            time.sleep(0.2)
            now = time.perf_counter()
            new = lines.stat().st_size if lines.exists() else 0
            if new != size:
                size, heard = new, now
            if now - heard > SILENCE_S or now > until:
                child.kill()
        return child.returncode == 0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["compile", "run", "child"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds")
    options = parser.parse_args()
    if options.action == "compile":
        compile_cases(options.folder, options.only, cases())
    elif options.action == "child":
        run_child(options.folder, options.out / LINES, options.only, options.budget)
    elif not run_guarded(options.folder, options.out, options.only, options.budget):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
