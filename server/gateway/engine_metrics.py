"""What `/metrics` tells of the engine: its last report, read when Prometheus asks. Knows no route.

Sums count from the engine's last start, as those of a restarted process do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from lostwax.server.engine.messages import Stats
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.grammar.counts import COMPILE_BOUNDS_S, GrammarStats


class EngineMetrics(Collector):
    """The metrics of one engine. Those of its work are left out while it has told of none."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would ask `collect` instead, before there is an engine."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        client = self._client
        is_up = client.state in ("ready", "late")
        yield _gauge("engine_up", "Whether the engine takes requests.", float(is_up))
        text = "Times that the engine was started again."
        yield _counter("engine_restarts", text, client.num_restarts)
        stats = client.stats
        if stats is not None:
            yield from _of(stats)
            if stats.grammars is not None:
                yield from _of_grammars(stats.grammars)


def _of(stats: Stats) -> Iterable[Metric]:
    yield _gauge("num_requests_running", "Prompts that run.", stats.running)
    yield _gauges(
        "num_requests_waiting",
        "Answers that wait: as many run as may (slots), pages are lacking (room), or another answer"
        " runs their prompt (prompt).",
        "reason",
        {
            "slots": stats.waiting_for_slots,
            "room": stats.waiting_for_room,
            "prompt": stats.waiting_for_prompt,
        },
    )
    yield _gauges(
        "cache_pages",
        "Pages of the cache: held by requests, idle with a known prefix, blank.",
        "state",
        {"used": stats.pages_used, "idle": stats.pages_idle, "blank": stats.pages_blank},
    )
    text = "Prompt tokens found in the prefix cache."
    yield _counter("prefix_cache_hit_tokens", text, stats.prefix_tokens)
    text = "Pages of the prefix cache that were saved to host memory."
    yield _counter("prefix_host_saved_pages", text, stats.host_pages_saved)
    text = "Pages of the prefix cache that were restored from host memory."
    yield _counter("prefix_host_restored_pages", text, stats.host_pages_restored)
    text = "Times that a request gave its pages to another."
    yield _counter("preemptions", text, stats.preemptions)
    text = "Steps that ran a program of a segment."
    yield _counters("engine_steps", text, "segment", stats.segments)
    text = "Time of steps, all their programs together."
    yield _counters("engine_step_seconds", text, "entry", stats.seconds)
    text = "Rows that steps ran: of prompts (extend), of answers and drafts to verify (decode)."
    yield _counters("engine_rows", text, "entry", stats.rows)
    yield _counter("draft_tokens", "Tokens that were drafted.", stats.drafted)
    yield _counter("accepted_draft_tokens", "Of these, tokens of the answer.", stats.accepted)


def _of_grammars(stats: GrammarStats) -> Iterable[Metric]:
    yield _counter("grammars_compiled", "Grammars that were compiled.", stats.compiled)
    text = "Requests whose grammar was there, or was being compiled for another."
    yield _counter("grammars_cached", text, stats.cached)
    text = "Grammars that were refused: invalid, too_slow, too_many or failed."
    yield _counters("grammars_refused", text, "reason", stats.refused)
    bounds = (*map(str, COMPILE_BOUNDS_S), "+Inf")
    yield HistogramMetricFamily(
        "lostwax_grammar_compile_seconds",
        "From asking for a grammar's process until it can be followed.",
        buckets=list(zip(bounds, accumulate(stats.compile_counts), strict=True)),
        sum_value=stats.compile_seconds,
    )
    text = "Steps that waited for masks."
    yield _counter("grammar_masked_steps", text, stats.masked_steps)
    text = "Time that they waited, while the model ran."
    yield _counter("grammar_mask_seconds", text, stats.mask_seconds)
    text = "Processes that follow grammars: compiling, used by answers, idle."
    yield _gauges("grammar_processes", text, "state", stats.processes)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lostwax_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"lostwax_{name}", text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    found = GaugeMetricFamily(f"lostwax_{name}", text, labels=[label])
    for key, value in values.items():
        found.add_metric([key], value)
    return found


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    found = CounterMetricFamily(f"lostwax_{name}", text, labels=[label])
    for key, value in values.items():
        found.add_metric([key], value)
    return found
