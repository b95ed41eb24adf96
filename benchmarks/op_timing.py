"""Times several ways to do one thing in turns: graphs over cold inputs, medians with spread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles

import torch

from lostwax.backends.cuda.driver import CudaDriver

GRAPH_S = 1.5e-3
MOST_CALLS = 256
ROUNDS = 12
"""Pairs of replays, in the order A B B A."""


def in_turns(
    driver: CudaDriver, ways: Mapping[str, Sequence[Callable[[], object]]]
) -> dict[str, dict[str, float]]:
    """Microseconds of one call of each way: median, and from the 10th to the 90th percentile.

    A way's calls are one graph, which runs them as often as fill GRAPH_S.
    """
    graphs = {name: _graph(driver, calls) for name, calls in ways.items()}
    samples: dict[str, list[float]] = {name: [] for name in ways}
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for number in range(-2, ROUNDS):
        order = list(graphs) if number % 2 else list(reversed(graphs))
        for name in order:
            replay, count = graphs[name]
            start.record()
            replay()
            stop.record()
            stop.synchronize()
            if number >= 0:
                samples[name].append(1e3 * start.elapsed_time(stop) / count)
    return {name: _told(each) for name, each in samples.items()}


def _told(samples: list[float]) -> dict[str, float]:
    cuts = quantiles(samples, n=10)
    return {"us": round(median(samples), 2), "spread_us": round(cuts[-1] - cuts[0], 2)}


def _graph(
    driver: CudaDriver, calls: Sequence[Callable[[], object]]
) -> tuple[Callable[[], None], int]:
    """A graph of some rounds over the calls, and how many calls it makes."""

    def wrapped(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            call()

        return run

    listed = [wrapped(call) for call in calls]
    once = driver.capture(listed)
    once()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    once()
    stop.record()
    stop.synchronize()
    whole = max(1e-3 * start.elapsed_time(stop), 1e-6)
    rounds = max(1, min(MOST_CALLS // len(calls), round(GRAPH_S / whole)))
    if rounds == 1:
        return once, len(calls)
    return driver.capture(listed * rounds), rounds * len(calls)
