"""Every op of V3.2 on a GPU, as the planner chooses it, beside the best peer that loads.

    python benchmarks/op.py compile FOLDER            # needs Triton and nvcc, no GPU
    python benchmarks/op.py run FOLDER --out FILE     # needs the GPU, no compiler of ours

Both take `--ops FAMILY,…` (products, experts, index, topk, attend, mha; index_forms, index_bf16).
Peers are used where they are installed: deep_gemm, flash_mla and torch itself. Ours and the peer
are checked against fp64, then timed in turns: graph replays over inputs that do not fit L2. A ratio
is the peer's time over ours. DeepGEMM compiles at the first call, which processes of `run` make
before. Of products and of index logits without a peer `ours` leaves out what a step makes once for
all layers (rope's tables, lists of tiles; they are in `ours whole`). Products count what ours do
behind the peer's bare product: norms, rope, rotation, silu, rounding.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from math import exp, log
from pathlib import Path
from typing import Any

import msgspec
import torch
from op_attend import Attend, WholeContexts
from op_experts import Experts
from op_grid import FAMILIES, PlannedOp, cases
from op_index import Index, Topk
from op_memory import Memory, Scratch
from op_products import Products
from op_timing import in_turns
from op_trial import Family, Peers, Trial, worst

from lostwax.backends.cuda.driver import CudaDriver
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.ir.contract.kernel import CompiledKernel

PEERLESS = {
    "fast_topk": "sglang-kernel, 587 MiB, is not brought; its top-k is not exact",
    "FA3": "no wheel is at hand; torch's attention is the peer of whole contexts",
}
WANTED = 0.9
COMPILED = ("products", "experts", "index", "index_forms")
"""Families whose peer compiles at the first call."""


class Folder(msgspec.Struct):
    """Contents of ops.json."""

    kernels: list[CompiledKernel]
    ops: list[PlannedOp]


def compile_ops(folder: Path, families: tuple[str, ...]) -> None:
    """Plan every case and compile its kernels."""
    from op_slices import TARGET, Planner

    from lostwax.backends.plan.kernel_builder import building
    from lostwax.backends.plan.kernel_requests import KernelRequests
    from lostwax.backends.plan.link import link
    from lostwax.backends.registry import find_target
    from lostwax.backends.runtime.usable_cores import usable_cores

    folder.mkdir(parents=True, exist_ok=True)
    headers = folder.with_name(f"{folder.name}.headers")
    backend, target = find_target(TARGET)
    requests = KernelRequests(backend, target)
    planners: dict[int, Planner] = {}
    planned: list[PlannedOp] = []
    for case in cases(families):
        if case.heads not in planners:
            planners[case.heads] = Planner(headers, case.heads, requests.request)
        op = planners[case.heads].plan(case)
        planned.append(op)
        print(f"{case.name:<40} {op.us:9.1f} us  {', '.join(op.lowerings)}", flush=True)
    sources = requests.sources
    with building(backend, target, folder, sources, usable_cores()) as builder:
        built = builder.finish()
    listed = list({k.binary: k for k in built.kernels}.values())
    linked = [
        msgspec.structs.replace(op, launches=link(op.launches, built.by_source)) for op in planned
    ]
    (folder / "ops.json").write_bytes(msgspec.json.encode(Folder(listed, linked)))
    size = sum(f.stat().st_size for f in folder.iterdir()) / 2**20
    print(f"{len(planned)} ops, {len(listed)} kernels, {size:.1f} MiB in {folder}")


class Bench:
    """Checks and times planned ops."""

    def __init__(self, folder: Path, families: tuple[str, ...]) -> None:
        built = msgspec.json.decode((folder / "ops.json").read_bytes(), type=Folder)
        self.ops = [op for op in built.ops if op.case.family in families]
        kernels = {k.binary: k for k in built.kernels}
        self._driver = CudaDriver(CUDA_SM90A, lambda n: (folder / n).read_bytes(), kernels)
        self.peers = Peers()
        self._open: tuple[str, Family] | None = None
        torch.backends.cuda.matmul.allow_tf32 = False

    def trial(self, op: PlannedOp, peers: Peers) -> Trial:
        """A case's numbers; its family keeps what the next may use, others' are freed."""
        made: dict[str, type[Family]] = {
            "products": Products, "experts": Experts, "index": Index, "topk": Topk,
            "attend": Attend, "mha": WholeContexts, "index_forms": Index, "index_bf16": Index,
        }  # fmt: skip
        name = op.case.family
        if self._open is None or self._open[0] != name:
            self._open = None
            torch.cuda.empty_cache()
            self._open = name, made[name]()
        return self._open[1].open(op, peers)

    def run(self, op: PlannedOp) -> dict[str, Any]:
        """A row of the table; a peer that fails is told, and ours measured without it."""
        try:
            return self._run(op, self.peers)
        except Exception as error:  # whatever another library raises
            row = self._run(op, Peers(allowed=False))
            return row | {"peer_failed": str(error).strip()[:300]}

    def _run(self, op: PlannedOp, peers: Peers) -> dict[str, Any]:
        trial, driver = self.trial(op, peers), self._driver
        scratch = Scratch(op, driver)
        sets = [Memory(op, driver, given, scratch) for given in trial.sets]
        for _ in range(2):  # what the first leaves must serve the second
            sets[0].run()
        driver.synchronize()
        want = trial.want()
        error = worst(trial.found(sets[0].outputs()), want)
        row: dict[str, Any] = {
            "case": op.case.name, "family": op.case.family, "lowerings": list(op.lowerings),
            "error": error, "right": error <= trial.bound and scratch.is_left_zero(),
        }  # fmt: skip
        ways: dict[str, Sequence[Callable[[], object]]] = {"ours": [each.run for each in sets]}
        if op.of_step and op.case.family in ("products", "index_bf16"):
            ways = {
                "ours": [each.run_layer for each in sets], "ours whole": [each.run for each in sets]
            }  # fmt: skip
        if (peer := trial.peer) is not None:
            row |= {"beside": peer.name, "peer_error": worst(peer.found(), want)}
            if peer.core:
                ways["ours"] = [each.of_symbol(peer.core, peer.counts) for each in sets]
                ways["ours whole"] = [each.run for each in sets]
                ways["peer whole"] = peer.around
            ways["peer"] = peer.calls
        want.clear()
        row |= in_turns(driver, ways)
        for ours, theirs, name in (
            ("ours", "peer", "ratio"), ("ours whole", "peer whole", "whole_ratio")
        ):  # fmt: skip
            if theirs in row:
                row[name] = round(row[theirs]["us"] / row[ours]["us"], 3)
        return row


def warm(folder: Path, families: tuple[str, ...], part: int, parts: int) -> None:
    """Call the peer once on each of its cases in this part, so that it compiles them."""
    bench = Bench(folder, families)
    seen: set[tuple[str, int, int]] = set()
    chosen: list[PlannedOp] = []
    for op in bench.ops:
        key = (op.case.op, op.case.rows, op.case.context)
        if op.case.family in COMPILED and key not in seen:
            seen.add(key)
            chosen.append(op)
    for op in chosen[part::parts]:
        peer = bench.trial(op, bench.peers).peer
        if peer is not None:
            peer.calls[0]()
    torch.cuda.synchronize()


def _warm_all(folder: Path, ops: str, parts: int) -> float:
    """Seconds that so many processes took to have the peer compile."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "warm", str(folder), "--ops", ops, "--parts", str(parts)]
    running = [subprocess.Popen([*command, "--part", str(i)]) for i in range(parts)]
    for each in running:
        each.wait()
    return time.perf_counter() - began


def run_ops(folder: Path, out: Path, ops: str, budget_s: float, parts: int) -> bool:
    """Everything in the time; True if all of ours are right."""
    began = time.perf_counter()
    bench = Bench(folder, tuple(ops.split(",")))
    warm_s = 0.0
    if bench.peers.get("deep_gemm") is not None and parts:
        warm_s = _warm_all(folder, ops, parts)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {warm_s:.0f} s", flush=True)
    rows: list[dict[str, Any]] = []
    for op in bench.ops:
        if time.perf_counter() - began > budget_s:
            rows.append({"case": op.case.name, "family": op.case.family, "skipped": "out of time"})
            continue
        try:
            row = bench.run(op)
        except (RuntimeError, ValueError, AssertionError) as error:
            row = {"case": op.case.name, "family": op.case.family, "failed": str(error)[:300]}
        rows.append(row)
        print(line_of(row), flush=True)
        _write(out, bench, rows, warm_s)
    print(*summary(rows), sep="\n")
    print(f"{time.perf_counter() - began:.0f} s")
    return all(row.get("right") for row in rows)


def _write(out: Path, bench: Bench, rows: list[dict[str, Any]], warm_s: float) -> None:
    report = {
        "command": " ".join(["python", "benchmarks/op.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "warm_s": round(warm_s, 1),
        "peers_missing": bench.peers.missing | PEERLESS,
        "rows": rows,
    }
    lines = json.dumps(report | {"rows": 0}, indent=1).removesuffix("}").rstrip()
    each = ",\n".join(json.dumps(row) for row in rows)
    out.write_text(lines.removesuffix('"rows": 0').rstrip() + f'\n "rows": [\n{each}\n ]\n}}\n')


def line_of(row: dict[str, Any]) -> str:
    """A row as text."""
    if "ours" not in row:
        return f"{row['case']:<36} {row.get('failed') or row.get('skipped')}"
    verdict = "" if row["right"] else "WRONG "
    ours = row["ours"]
    text = (
        f"{row['case']:<36} {verdict}{row['error']:8.1e} {ours['us']:9.2f} ±{ours['spread_us']:.2f}"
    )
    if "ratio" not in row:
        return f"{text} {row.get('peer_failed', '')}"
    text += f" | {row['peer_error']:8.1e} {row['peer']['us']:9.2f} | {row['ratio']:5.2f}"
    if "whole_ratio" in row:
        text += f" (whole {row['ours whole']['us']:.1f}, {row['whole_ratio']:.2f})"
    return text + ("" if row["ratio"] >= WANTED else " <")


def summary(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Geometric means of the ratios by op, and how many are below what is wanted."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if "ratio" in row:
            op = row["case"].rsplit(" M=")[0].rsplit(" b=")[0]
            op += " forms" * (row["family"] == "index_forms")
            groups.setdefault(op, []).append(row["ratio"])
    for op, ratios in groups.items():
        mean = exp(sum(map(log, ratios)) / len(ratios))
        below = sum(r < WANTED for r in ratios)
        yield f"{op:<28} x{mean:.2f} of the peer, least {min(ratios):.2f}, {below} below {WANTED}"
    wrong = [row["case"] for row in rows if not row.get("right") and "skipped" not in row]
    skipped = sum("skipped" in row for row in rows)
    yield f"{len(rows)} cases, {len(wrong)} wrong or failed {wrong}, {skipped} out of time"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["compile", "run", "warm"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("op.json"))
    parser.add_argument("--ops", default=",".join(FAMILIES))
    parser.add_argument("--budget", type=float, default=270.0, help="seconds")
    parser.add_argument("--parts", type=int, default=14, help="processes that compile the peer")
    parser.add_argument("--part", type=int, default=0)
    options = parser.parse_args()
    families = tuple(options.ops.split(","))
    if options.action == "compile":
        compile_ops(options.folder, families)
    elif options.action == "warm":
        warm(options.folder, families, options.part, options.parts)
    elif not run_ops(options.folder, options.out, options.ops, options.budget, options.parts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
