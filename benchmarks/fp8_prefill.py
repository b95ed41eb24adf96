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
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import torch
from fp8_cases import (
    EXPERTS,
    GATED,
    LINEAR,
    PROJECTIONS,
    QUERIES,
    Knobs,
    ProductCase,
    quantised,
)
from fp8_products import (
    Built,
    BuiltCase,
    BuiltSetting,
    Drawn,
    Runner,
    compile_cases,
    rates,
    run_all,
)
from fp8_settings import UNITS
from op_products import multiply

from lostwax.backends.runtime.form_weight import SourceTensors

LINES = "fp8_prefill.jsonl"
SILENCE_S = 25.0
RESTARTS = 4
ROUNDS = 5
GRAPH_S = 2e-3
PEER = "DeepGEMM"
_ROWS = (64, 128, 1024, 4096)
_BEST = 6
"""Tiles of a case that are timed: those that the rule takes for the fastest."""
_ALSO = 2
"""Of these, how many in other ways, too."""
FEW_ROWS = 128
"""Rows of decode, at most."""


def cases() -> Iterator[ProductCase]:
    """Edge contents first, then by rows."""
    for form in ("fp8", "bf16"):
        for op, label, shape in _shapes():
            for rows, real in ((64, 33), (512, 333)):
                if op != "experts":
                    yield _case(op, label, shape, rows, form, real=real)
        for choice in ("one takes all", "holes"):
            yield _case("experts", "experts", EXPERTS, 256, form, real=200, choice=choice)
    for form in ("fp8", "bf16"):
        for rows in _ROWS:
            for op, label, shape in _shapes():
                if rows > FEW_ROWS or op != "experts":
                    yield _case(op, label, shape, rows, form)


def _shapes() -> Iterator[tuple[str, str, tuple[int, ...]]]:
    yield "queries", "queries", QUERIES
    yield "projections", "projections", PROJECTIONS
    for label in ("o", "down", "shared down"):
        yield "linear", label, LINEAR[label]
    for label, shape in GATED.items():
        yield "gated", label, shape
    yield "experts", "experts", EXPERTS


def _case(
    op: str, label: str, shape: tuple[int, ...], rows: int, form: str,
    real: int | None = None, choice: str = "even",
) -> ProductCase:  # fmt: skip
    found = list(_settings(op, shape, rows, form))
    if real is not None:
        found = found[:4]
    return ProductCase(
        op=op, label=label, shape=shape, rows=rows, real=real or rows, form=form, choice=choice,
        settings=({},) if rows <= FEW_ROWS and op != "experts" else (), many_rows=tuple(found),
        timed=real is None,
    )  # fmt: skip


def _settings(op: str, shape: tuple[int, ...], rows: int, form: str) -> Iterator[Knobs]:
    """The rule, then other tiles, those that it takes for the fastest first; of the first two
    clusters, too, and such as take the next tile."""
    from lostwax.backends.cuda.lowerings.fp8_products import KNOBS, tile_sizes
    from lostwax.backends.cuda.lowerings.fp8_tiles import Extent, product_us
    from lostwax.backends.cuda.target import CUDA_SM90A

    yield {}
    if op == "experts":
        for cluster, columns in ((1, 128), (2, 128), (1, 192), (2, 192), (1, 160)):
            yield {"cluster": cluster, "columns": columns}
        yield {"dynamic": 2}
        yield {"turns": 4}
        return
    columns = shape[0] if op in ("gated", "linear") else sum(shape[:-1])
    terms = 1 if form == "fp8" else 2
    room = CUDA_SM90A.shared_memory_bytes
    extent = Extent(rows, columns, shape[-1], terms, op == "gated", UNITS, room)
    knobs = {knob.name: 0 for knob in KNOBS}
    if op == "queries":
        knobs["columns"] = 128
    sizes = sorted(tile_sizes(extent, knobs), key=lambda size: product_us(size, extent))
    anchors = {(64, 64), (64, 128), (128, 64), (128, 128), (128, 192), (256, 128)}
    chosen = sizes[:_BEST]
    chosen += [s for s in sizes[_BEST:] if (s.rows, s.columns) in anchors]
    for number, size in enumerate(chosen):
        knobs = {"tile_rows": size.rows, "columns": size.columns}
        if op == "queries":
            del knobs["columns"]
        yield knobs
        if number < _ALSO:
            yield knobs | {"cluster": 2}
        if number < _ALSO and rows > FEW_ROWS:
            yield knobs | {"dynamic": 1}
        if number < _ALSO and rows <= FEW_ROWS:
            yield knobs | {"stages": 6}


def peers_of(case: ProductCase) -> list[tuple[int, int]]:
    """First row and rows, in the joined weight, of each product that the peer makes."""
    *widths, _ = case.shape
    if case.op == "projections":
        return [(0, widths[0] + widths[2]), (widths[0] + widths[2], widths[1])]
    if case.op == "queries":
        return [(0, widths[0]), (widths[0], widths[1])]
    return [(0, sum(widths))]


class Turns(Runner):
    """Runs the cases' settings that a file of lines does not have yet, and adds its own."""

    def __init__(self, folder: Path, built: Built, until: float, lines: Path) -> None:
        super().__init__(folder, built, until)
        self._lines = lines
        self._peer: Any = import_module("deep_gemm") if find_spec("deep_gemm") else None
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
        if case.timed and (calls := self.peer_calls(built, drawn)):
            peer: dict[str, Any] = {"case": case.name, "lowering": PEER, "knobs": {}}
            peer |= {"error": 0.0, "right": True}
            found.append(peer)
            graphs.append((peer, *self._captured(calls)))
        timed = zip(graphs, self._timed(graphs), strict=True)
        for (row, _, _), us in timed:
            row |= rates(case, drawn.own, us)
            self._write(row)
        _print_case(case, found)
        return all(row["right"] for row in found)

    def peer_calls(self, built: BuiltCase, drawn: Drawn) -> list[Callable[[], None]]:
        """The peer's products over each set of weights; none where it is not installed."""
        case = built.case
        if self._peer is None or case.op == "experts":
            return []
        x = drawn.own["x"]
        given = (x, drawn.own["x:scale"]) if case.form == "fp8" else quantised(x)
        calls: list[Callable[[], None]] = []
        for weights in self._weights:
            name = next(n for n in weights if not n.endswith(":scale"))
            products = [
                multiply(
                    self._peer, given,
                    SourceTensors(
                        weights[name][first : first + rows],
                        weights[f"{name}:scale"][-(-first // 128) :][: -(-rows // 128)],
                    ),
                )[0]
                for first, rows in peers_of(case)
            ]  # fmt: skip
            calls.append(partial(run_all, products))
        return calls

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


def warm(folder: Path, part: int, parts: int) -> None:
    """Call the peer once for each of its products in this part, so that it compiles them."""
    built = msgspec.json.decode((folder / "cases.json").read_bytes(), type=Built)
    runner = Turns(folder, built, time.perf_counter() + 60, folder / "none")
    timed = [item for item in built.cases if item.case.timed and item.case.form == "fp8"]
    for item in sorted(timed, key=lambda item: (item.case.rows, item.case.name))[part::parts]:
        for call in runner.peer_calls(item, runner.draw_inputs(item))[:1]:
            call()
    torch.cuda.synchronize()


def run_guarded(folder: Path, out: Path, only: str, budget_s: float, parts: int) -> bool:
    """Start the child until it has run all or the time is over; True if every setting is right."""
    until = time.perf_counter() + budget_s
    out.mkdir(parents=True, exist_ok=True)
    lines = out / LINES
    lines.unlink(missing_ok=True)
    if find_spec("deep_gemm") and parts:
        command = [sys.executable, __file__, "warm", str(folder), "--parts", str(parts)]
        running = [subprocess.Popen([*command, "--part", str(i)]) for i in range(parts)]
        for each in running:
            each.wait()
        print(f"{budget_s - until + time.perf_counter():.0f} s for the peer to compile", flush=True)
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
    parser.add_argument("action", choices=["compile", "run", "child", "warm"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds")
    parser.add_argument("--parts", type=int, default=14, help="processes that compile the peer")
    parser.add_argument("--part", type=int, default=0)
    options = parser.parse_args()
    if options.action == "compile":
        compile_cases(options.folder, options.only, cases())
    elif options.action == "warm":
        warm(options.folder, options.part, options.parts)
    elif options.action == "child":
        run_child(options.folder, options.out / LINES, options.only, options.budget)
    elif not run_guarded(options.folder, options.out, options.only, options.budget, options.parts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
