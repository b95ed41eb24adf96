"""How soon the first token of a long prompt comes: cold, and behind a prefix that lies in the cache
or in host memory.

    python benchmarks/host_tier.py ARTIFACT --checkpoint models/tiny/weights --out FILE

The prompt has `--rows` tokens of prefix and 16 behind it; each way runs once a turn, alone:
`cold` in an empty cache, `device` where the cache holds the prefix, `host` where another prompt has
driven all of it out, and as many pages come back as gave way. Each answer must be the cold one's.
Prints medians of `--turns` turns, and what the copies of the restored pages take alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lostwax.backends.runtime.load import Runtime, load
from lostwax.ir.contract.caches import bytes_per_page
from lostwax.ir.contract.step_plan import Move
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit
from lostwax.server.engine.options import SERVED

TAIL = 16
"""Tokens behind the prefix."""
WAYS = ("cold", "device", "host")
COPIES = 20
"""Times that the restored pages are copied alone."""


def _tokens(runtime: Runtime, count: int, step: int) -> list[int]:
    return [(step * i + 7) % runtime.limits.vocab_size for i in range(count)]


class _Asked:
    """An engine, and how long each request took to its only token."""

    def __init__(self, runtime: Runtime, prefix: list[int]) -> None:
        self._runtime = runtime
        self._prefix = prefix
        self._other = _tokens(runtime, len(prefix) + TAIL, 37)
        self._count = 0
        self.core = EngineCore(runtime, replace(SERVED, max_drafts=0), depth=int(runtime.overlaps))

    def ask(self, prompt: list[int]) -> tuple[float, Output]:
        """Seconds to the first token, and the event that brought it."""
        self._count += 1
        name = f"r{self._count}"
        begin = time.perf_counter()
        refused = self.core.handle(
            Submit(request=name, prompt=prompt, max_tokens=1, ignore_eos=True)
        )
        assert not refused, refused
        while True:
            for event in self.core.step():
                assert isinstance(event, Output), event
                return time.perf_counter() - begin, event

    def prompt(self, turn: int) -> list[int]:
        """The prefix, and a tail of its own for each turn."""
        return [*self._prefix, *_tokens(self._runtime, TAIL, turn + 3)]

    def drive_out(self) -> None:
        """Let another prompt take the cache's pages."""
        self.ask(self._other)


def _turn(runtime: Runtime, rows: int, turn: int) -> dict[str, Any]:
    """One measurement of each way, on an engine whose cache and host memory are empty."""
    asked = _Asked(runtime, _tokens(runtime, rows, 31))
    whole = rows // runtime.limits.page_tokens * runtime.limits.page_tokens
    found: dict[str, Any] = {}
    answers: set[int] = set()
    for way, is_warm in (("cold", False), ("device", True), ("host", True)):
        if way == "host":
            asked.drive_out()
        before = asked.core.stats.host_pages_restored
        found[way], event = asked.ask(asked.prompt(turn))
        assert event.cached_tokens == (whole if is_warm else 0), (way, event.cached_tokens)
        answers.add(event.tokens[0].token)
        restored = asked.core.stats.host_pages_restored - before
        assert (restored > 0) == (way == "host"), (way, restored)
    assert len(answers) == 1, "a prefix that was found changed the answer"
    return found | {"restored_pages": restored}


def _copies(runtime: Runtime, count: int) -> float:
    """Median seconds of the copies of `count` pages from host memory alone."""
    host = getattr(runtime, "_host_pages")  # noqa: B009
    moves = [Move(1 + i, i, is_restore=True) for i in range(count)]
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(COPIES):
            begin = time.perf_counter()
            host.move(moves)
            runtime.driver.synchronize()
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def main() -> None:
    """Load, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    limits = load(options.artifact, checkpoint=options.checkpoint).limits
    pages = -(-(options.rows + TAIL) // limits.page_tokens) + 2  # of one prompt, and page 0
    runtime = load(
        options.artifact,
        checkpoint=options.checkpoint,
        num_pages=pages,
        num_host_pages=4 * pages,
        threads=options.threads,
    )
    if options.threads is None:
        runtime.choose_threads()
    _turn(runtime, options.rows, 0)  # first steps of a program take longer
    turns = [_turn(runtime, options.rows, 1 + turn) for turn in range(options.turns)]
    medians = {way: statistics.median(turn[way] for turn in turns) for way in WAYS}
    count = turns[0]["restored_pages"]
    report = {
        "machine": platform.processor() or platform.machine(),
        "target": runtime.manifest.target.name,
        "rows": options.rows,
        "tail": TAIL,
        "page_bytes": bytes_per_page(runtime.manifest.planes),
        "restored_pages": count,
        "first_token_ms": {way: round(1e3 * each, 3) for way, each in medians.items()},
        "cold_of": {way: round(medians["cold"] / medians[way], 1) for way in WAYS[1:]},
        "copies_alone_ms": round(1e3 * _copies(runtime, count), 3),
        "turns_ms": {way: [round(1e3 * turn[way], 3) for turn in turns] for way in WAYS},
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
