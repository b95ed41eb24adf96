"""lostwax beside transformers on one CPU: decode and prefill, interleaved in one run.

    python benchmarks/cpu_decode.py [--model tiny] [--points 1x300 8x4096] [--threads 2]
        [--arms fp32 bf16 fp8] [--base fp32] [--peers eager compile] [--out FILE]

Each library and each way to store the weights is a process of its own, idle while another runs. A
point is BATCHxCONTEXT: all of them take the same prompts, then steps in turns. A ratio is the
median over turns of eager's median step over the arm's. What `GOALS` promises is checked, and
greedy tokens of arms that compute in fp32 with weights as the base has them: transformers runs, in
fp32, what those weights mean.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent
CONFIG = ROOT / "examples" / "bench-100m.json"
TINY = ROOT / "models" / "tiny" / "weights"
BASE = "eager fp32"
"""What ratios are over."""


class Arm(NamedTuple):
    """How lostwax stores and computes: the checkpoint's format, options of `lostwax compile`;
    `exact` if its arithmetic is fp32, so that tokens must be transformers' own."""

    format: str
    options: tuple[str, ...]
    exact: bool


ARMS = {
    "fp32": Arm("fp32", ("--dtype", "fp32"), exact=True),
    "bf16": Arm("bf16", ("--dtype", "bf16"), exact=False),
    "fp8": Arm("fp8", ("--dtype", "bf16"), exact=False),
    "fp8-fp32": Arm("fp8", ("--dtype", "fp32", "--weights", "stored"), exact=True),
    "int8": Arm("fp32", ("--dtype", "bf16", "--weights", "int8"), exact=False),
    "int8-fp32": Arm("fp32", ("--dtype", "fp32", "--weights", "int8"), exact=False),
}
GOALS = {  # (workload, arm) at two threads: least ratio over eager fp32 that the project promises
    ("decode 1x300", "fp32"): 5.0,
    ("decode 1x300", "bf16"): 12.0,
    ("decode 1x300", "fp8"): 24.0,
    ("decode 1x300", "int8"): 24.0,
    ("prefill of 128", "fp32"): 1.5,
    ("prefill of 512", "fp32"): 1.5,
    ("prefill of 128", "bf16"): 2.5,
    ("prefill of 512", "bf16"): 2.5,
}
GOAL_THREADS = 2
PREFILLS = (128, 512)
TURN_STEPS = 24
"""Of one library before the next has its turn: the first of them read weights that the others have
driven out of the caches, which is nobody's steady state; a median leaves them out."""


class Process:
    """A library in its own process (`cpu_peer.py`)."""

    def __init__(self, library: str, folder: Path, checkpoint: Path, threads: int) -> None:
        command = [sys.executable, str(HERE / "cpu_peer.py"), library, str(folder)]
        command += ["--checkpoint", str(checkpoint), "--threads", str(threads)]
        path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark process ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, what: str, **more: Any) -> Any:
        """Its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def in_turn(names: list[str], turn: int) -> list[str]:
    """Forwards and backwards, so that what drifts is nobody's."""
    return names if turn % 2 else names[::-1]


def rows_of(
    workload: str, times: dict[str, list[float]], equal: dict[str, int], threads: int
) -> list[dict[str, Any]]:
    """A line for each but the base: seconds are medians of a turn."""
    rows: list[dict[str, Any]] = []
    for name, mine in times.items():
        if name == BASE:
            continue
        ratios = [b / m for b, m in zip(times[BASE], mine, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
        goal = GOALS.get((workload, name)) if threads == GOAL_THREADS else None
        rows.append(
            {
                "workload": workload,
                "arm": name,
                "ms": round(1e3 * statistics.median(mine), 3),
                "eager_ms": round(1e3 * statistics.median(times[BASE]), 3),
                "ratio": round(statistics.median(ratios), 2),
                "quartiles": [round(low, 2), round(high, 2)],
                "goal": goal,
                **({"equal_tokens": equal[name]} if name in equal else {}),
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def leading(a: list[list[int]], b: list[list[int]]) -> int:
    """Tokens in which all requests agree from their start on."""
    count = min(len(tokens) for tokens in (*a, *b))
    return next(
        (i for i in range(count) if [x[i] for x in a] != [x[i] for x in b]),
        count,
    )


def decode(
    processes: dict[str, Process], batch: int, context: int, vocab: int, turns: int
) -> tuple[dict[str, list[float]], dict[str, list[list[int]]]]:
    """Turns of steps: the medians of each, and all tokens of each request."""
    rng = random.Random(context)
    prompts = [[rng.randrange(4, vocab) for _ in range(context)] for _ in range(batch)]
    names = list(processes)
    tokens = {n: processes[n].ask("prefill", prompts=prompts)["tokens"] for n in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns + 1):  # the first warms up
        for name in in_turn(names, turn):
            answer = processes[name].ask("steps", count=TURN_STEPS)
            if turn:
                times[name].append(statistics.median(answer["seconds"]))
            for found, more in zip(tokens[name], answer["tokens"], strict=True):
                found += more
    for process in processes.values():
        process.ask("end")
    return times, tokens


def prefill(
    processes: dict[str, Process], length: int, vocab: int, turns: int
) -> dict[str, list[float]]:
    """One prompt until its first token, another in each turn."""
    rng = random.Random(length)
    times: dict[str, list[float]] = {name: [] for name in processes}
    for turn in range(turns + 1):
        prompt = [rng.randrange(4, vocab) for _ in range(length)]
        for name in in_turn(list(processes), turn):
            (seconds,) = processes[name].ask("prefill", prompts=[prompt])["seconds"]
            processes[name].ask("end")
            if turn:
                times[name].append(seconds)
    return times


def lostwax(*arguments: str) -> None:
    """`lostwax ...`, in a process."""
    subprocess.run([sys.executable, "-m", "lostwax", *arguments], check=True, stdout=sys.stderr)


def checkpoints(model: str, work: Path, formats: set[str]) -> dict[str, Path]:
    """The model's folder in each format; the trained one has but its own."""
    if model == "tiny":
        return dict.fromkeys(formats, TINY)
    for name in formats:
        made = ["new-checkpoint", "--config", str(CONFIG), "--seed", "0", "--format", name]
        lostwax(*made, "-o", str(work / name))
    return {name: work / name for name in formats}


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Compile, start, and ask at every point."""
    arms = {name: ARMS[name] for name in options.arms}
    folders = checkpoints(
        options.model, work, {options.base, *(arm.format for arm in arms.values())}
    )
    points = [tuple(map(int, point.split("x"))) for point in options.points]
    sizes = ["--max-context", str(max([c for _, c in points] + [512]) + 512)]
    sizes += ["--max-reqs", str(max(b for b, _ in points))]
    processes: dict[str, Process] = {}
    for name, arm in arms.items():
        source, artifact = folders[arm.format], work / f"artifact-{name}"
        lostwax("compile", str(source), *arm.options, *sizes, "-o", str(artifact))
        processes[name] = Process("lostwax", artifact, source, options.threads)
    for peer in options.peers:
        folder = folders[options.base]
        processes[f"{peer} fp32"] = Process(peer, folder, folder, options.threads)
    vocab = json.loads((folders[options.base] / "config.json").read_text())["vocab_size"]
    # The trained model has one format, whatever an arm asks for.
    same = set(folders) if options.model == "tiny" else {options.base}
    rows: list[dict[str, Any]] = []
    reads = [processes[BASE].ask("read")["bytes_per_second"]]
    for batch, context in points:
        times, tokens = decode(processes, batch, context, vocab, options.turns)
        equal = {
            name: leading(tokens[name], tokens[BASE])
            for name in tokens
            if name not in arms or (arms[name].exact and arms[name].format in same)
        }
        rows += rows_of(f"decode {batch}x{context}", times, equal, options.threads)
        reads.append(processes[BASE].ask("read")["bytes_per_second"])
    for length in options.prefills:
        times = prefill(processes, length, vocab, options.turns)
        rows += rows_of(f"prefill of {length}", times, {}, options.threads)
    reads.append(processes[BASE].ask("read")["bytes_per_second"])
    for process in processes.values():
        process.close()
    return {
        "tokens": 1 + TURN_STEPS * (options.turns + 1),
        "read_gbps": [round(r / 1e9, 1) for r in reads],
        "rows": rows,
    }


def main() -> None:
    """Make, compile, measure, print; exit 1 where a goal is missed or tokens differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=("bench", "tiny"), default="bench")
    parser.add_argument("--threads", type=int, default=GOAL_THREADS)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--points", nargs="+", default=["1x16", "1x300"])
    parser.add_argument("--prefills", nargs="*", type=int, default=list(PREFILLS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--base", choices=("fp32", "fp8"), default="fp32")
    parser.add_argument("--peers", nargs="+", choices=("eager", "compile"), default=["eager"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if "eager" not in options.peers:
        parser.error("ratios are over eager: name it in --peers")
    with tempfile.TemporaryDirectory() as work:
        found = measure(options, Path(work))
    report: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/cpu_decode.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {options.threads} threads",
        **found,
    }
    text = json.dumps(report, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    missed = [r for r in report["rows"] if r["goal"] and r["ratio"] < r["goal"]]
    missed += [
        r for r in report["rows"] if r.get("equal_tokens", found["tokens"]) < found["tokens"]
    ]
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
