"""lostwax beside transformers on one CPU: decode and prefill, interleaved pairs in one run.

`python benchmarks/cpu_decode.py --out FILE` makes a random checkpoint of about 50M parameters,
compiles it in fp32, starts one process a library (same threads, idle while another runs) and
asks them in turn. A ratio is the median over pairs of peer time / lostwax time.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONFIG = HERE.parent / "examples" / "bench-50m.json"
GOALS = {  # (workload, peer): least ratio that the project promises
    ("decode at 300", "eager"): 2.0,
    ("decode at 300", "compile"): 1.3,
    ("decode at 16", "eager"): 1.5,
    ("prefill of 512", "eager"): 1.2,
}
WORKLOADS = {"decode at 16": (16, 33), "decode at 300": (300, 33), "prefill of 512": (512, 1)}


class Peer:
    """One library in its own process."""

    def __init__(self, library: str, folder: Path, threads: int) -> None:
        command = [sys.executable, str(HERE / "cpu_peer.py"), library, str(folder)]
        self.process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark process ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, prompt: list[int], new: int) -> tuple[float, list[int]]:
        """Seconds (of the prefill if new is 1, else the median decode step) and the tokens."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"prompt": prompt, "new": new}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        seconds = answer["seconds"]
        return statistics.median(seconds[1:] if new > 1 else seconds), answer["tokens"]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def _run(command: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "lostwax", *command], check=True)


def measure(peers: dict[str, Peer], vocab_size: int, pairs: int) -> list[dict[str, Any]]:
    """Every workload: the libraries in turn, `pairs` times, after one round that warms up."""
    rows: list[dict[str, Any]] = []
    for workload, (length, new) in WORKLOADS.items():
        rng = random.Random(length)
        times: dict[str, list[float]] = {name: [] for name in peers}
        equal = {name: True for name in peers}
        for pair in range(pairs + 1):
            prompt = [rng.randrange(2, vocab_size) for _ in range(length)]
            order = list(peers) if pair % 2 else list(peers)[::-1]
            tokens: dict[str, list[int]] = {}
            for name in order:
                seconds, tokens[name] = peers[name].ask(prompt, new)
                if pair:
                    times[name].append(seconds)
            for name in peers:
                equal[name] &= tokens[name] == tokens["lostwax"]
        for name in peers:
            if name == "lostwax":
                continue
            ratios = [p / o for p, o in zip(times[name], times["lostwax"], strict=True)]
            quartiles = statistics.quantiles(ratios, n=4)
            rows.append(
                {
                    "workload": workload,
                    "peer": name,
                    "peer_ms": round(1e3 * statistics.median(times[name]), 3),
                    "lostwax_ms": round(1e3 * statistics.median(times["lostwax"]), 3),
                    "ratio": round(statistics.median(ratios), 2),
                    "quartiles": [round(quartiles[0], 2), round(quartiles[2], 2)],
                    "goal": GOALS.get((workload, name)),
                    "greedy_equal": equal[name],
                }
            )
    return rows


def main() -> None:
    """Make, compile, measure, print; exit 1 where a goal is missed or tokens differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--peers", nargs="+", default=["eager", "compile"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        checkpoint, artifact = Path(work, "checkpoint"), Path(work, "artifact")
        config = ["--config", str(CONFIG), "--seed", "0", "--format", "fp32"]
        _run(["new-checkpoint", *config, "-o", str(checkpoint)])
        _run(["compile", str(checkpoint), "--dtype", "fp32", "-o", str(artifact)])
        folders = {"lostwax": artifact} | dict.fromkeys(options.peers, checkpoint)
        peers = {name: Peer(name, f, options.threads) for name, f in folders.items()}
        rows = measure(peers, json.loads(CONFIG.read_text())["vocab_size"], options.pairs)
        for peer in peers.values():
            peer.close()
    report = {
        "command": " ".join(["python", "benchmarks/cpu_decode.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {options.threads} threads",
        "pairs": options.pairs,
        "rows": rows,
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    missed = [r for r in rows if (r["goal"] and r["ratio"] < r["goal"]) or not r["greedy_equal"]]
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
