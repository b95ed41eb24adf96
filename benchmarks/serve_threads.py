"""Tokens a second of `lostwax serve` on the threads that it chooses, and on given numbers.

`python benchmarks/serve_threads.py --out FILE` starts the default model once a setting, each server
idle while another is asked, and asks them in turn, in pairs. A ratio is the median over pairs of
chosen / given. Other work on the cores slows all of them, but not alike: see the load average.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx

STREAMS = (1, 8)
TOKENS = 48
PROMPT = "Tom has 12 apples. He gives 5 to Mia. How many apples does he have left?"
CHOSEN = "chosen"


@contextmanager
def served(threads: str) -> Generator[tuple[str, list[str]]]:
    """The URL of a server, and what it printed until it was ready."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "lostwax", "serve", "--port", "0", "--ready-fd", str(writing)]
    command += [] if threads == CHOSEN else ["--threads", threads]
    command += ["--disable-radix-cache"]  # one prompt is asked again and again
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=[writing]) as server:
        os.close(writing)
        assert server.stderr is not None
        printed: list[str] = []
        threading.Thread(target=lambda: printed.extend(server.stderr or []), daemon=True).start()
        try:
            with open(reading, "rb") as pipe:
                yield f"http://127.0.0.1:{json.loads(pipe.read())['port']}", printed
        finally:
            server.terminate()


def tokens_a_second(url: str, streams: int) -> float:
    """Of so many requests at once, from the first one's start to the last one's end."""
    body = {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}

    def ask(_: int) -> int:
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=300).raise_for_status()
        return answer.json()["usage"]["completion_tokens"]

    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        begin = time.perf_counter()
        count = sum(pool.map(ask, range(streams)))
        return count / (time.perf_counter() - begin)


def measure(urls: dict[str, str], pairs: int) -> list[dict[str, Any]]:
    """Each number of streams: the settings in turn, after one round that warms up."""
    rows: list[dict[str, Any]] = []
    for streams in STREAMS:
        found: dict[str, list[float]] = {name: [] for name in urls}
        for pair in range(pairs + 1):
            for name in list(urls) if pair % 2 else list(urls)[::-1]:
                rate = tokens_a_second(urls[name], streams)
                if pair:
                    found[name].append(rate)
        for name, rates in found.items():
            ratios = [c / r for c, r in zip(found[CHOSEN], rates, strict=True)]
            spread = {
                "chosen_over_this": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "most": round(max(ratios), 2),
            }
            rate = round(statistics.median(rates), 1)
            rows.append({"streams": streams, "threads": name, "tokens_a_second": rate, **spread})
    return rows


def main() -> None:
    """Start, ask in turn, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", nargs="+", default=["1", str(os.cpu_count())])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        servers = {n: stack.enter_context(served(n)) for n in (CHOSEN, *options.threads)}
        rows = measure({name: url for name, (url, _) in servers.items()}, options.pairs)
        printed = servers[CHOSEN][1]
    report = {
        "command": " ".join(["python", "benchmarks/serve_threads.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "pairs": options.pairs,
        "choice": next((line.strip() for line in printed if line.startswith("threads, of")), ""),
        "rows": rows,
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
