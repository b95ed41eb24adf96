"""What `/metrics` tells Prometheus: the gateway's requests. Knows no route and no text.

Names are vLLM's and SGLang's behind the prefix, so that boards need another prefix and nothing
else. One registry an application: nothing is shared with other libraries of the process.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from lostwax.server.gateway.request_record import RequestRecord

MEDIA_TYPE = CONTENT_TYPE_LATEST
_UP_TO_10_MS = (0.001, 0.002, 0.004, 0.006, 0.008, 0.01)
_UP_TO_10_S = (0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, *_UP_TO_10_S, 20.0, 40.0, 80.0)
"""vLLM's bounds."""
TOKEN_S = (*_UP_TO_10_MS, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, *_UP_TO_10_S)
REQUEST_S = (0.05, 0.1, *_UP_TO_10_S, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0)
LENGTHS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))
"""Tokens of a prompt or an answer: up to 500,000."""


class Metrics:
    """Counts requests, an Observer of their records. `others` tell of the queue and of what runs
    behind; `token_histograms` adds those of prompts' and answers' lengths."""

    def __init__(self, *others: Collector, token_histograms: bool = False) -> None:
        self._registry = CollectorRegistry()
        for other in others:
            self._registry.register(other)
        self._requests = self._counter(
            "requests", "HTTP requests that have ended.", ("route", "outcome")
        )
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts that began.")
        self._cached_tokens = self._counter(
            "cached_tokens", "Of these, tokens that were found in the prefix cache."
        )
        self._generated = self._counter("generation_tokens", "Tokens of answers.")
        self._first_token = self._histogram(
            "time_to_first_token_seconds",
            "From a request's head to its first token.",
            FIRST_TOKEN_S,
        )
        self._gap = self._histogram(
            "inter_token_latency_seconds",
            "Wait for a token behind the first; tokens that come together share it.",
            TOKEN_S,
        )
        self._per_token = self._histogram(
            "request_time_per_output_token_seconds",
            "Mean time of a token behind the first, of each choice of a request.",
            TOKEN_S,
        )
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "From a generating request's head to its end.", REQUEST_S
        )
        self._lengths: tuple[Histogram, Histogram] | None = None
        if token_histograms:
            self._lengths = (
                self._histogram("request_prompt_tokens", "Tokens of a request's prompts.", LENGTHS),
                self._histogram("request_generation_tokens", "Tokens of its answers.", LENGTHS),
            )

    def tokens(self, gap_s: float | None, count: int) -> None:
        """A choice was given `count` tokens, `gap_s` after those before; None for the first."""
        self._generated.inc(count)
        if gap_s is not None:
            for _ in range(count):
                self._gap.observe(gap_s / count)

    def prompt(self, num_tokens: int, num_cached: int) -> None:
        """A choice began behind so many prompt tokens, of which some were cached."""
        self._prompt_tokens.inc(num_tokens)
        self._cached_tokens.inc(num_cached)

    def first_token(self, seconds: float) -> None:
        """The first token of a request is there, so long after its head."""
        self._first_token.observe(seconds)

    def ended(self, record: RequestRecord) -> None:
        """A request has ended."""
        self._requests.labels(record.route, record.outcome).inc()
        if not record.generates:
            return
        self._whole.observe(record.total_s)
        for seconds in record.per_token_s:
            self._per_token.observe(seconds)
        if self._lengths is not None:
            prompt, generated = self._lengths
            prompt.observe(record.num_prompt)
            generated.observe(record.num_output)

    def exposition(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"lostwax_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"lostwax_{name}", text, buckets=buckets, registry=self._registry)
