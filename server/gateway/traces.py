"""One OpenTelemetry span a request that generates, in the terms of its GenAI conventions.

Spans are sent in the background, as OTLP over HTTP. A collector that is slow or gone costs no
request anything: what waits is bounded, the rest is dropped and counted, and one line says so.
Knows no text of any prompt or answer. Needs the extra `otel`; nobody else imports it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import lostwax
from lostwax.server.gateway.request_record import RequestRecord

OPERATIONS = {"/v1/completions": "text_completion", "/v1/chat/completions": "chat"}
"""The conventions' names of what a route does."""
SEND_S = 2.0
"""Within this a batch is sent or lost."""
MAX_WAITING = 2048
"""Spans that wait to be sent; more are dropped."""
MAX_BATCH = 512
EVERY_MS = 1000


class Traces:
    """Makes a span of each record that ends: an Observer. `model` is the name that is served,
    `say` hears once when spans are lost, and of their number at the end."""

    def __init__(
        self, endpoint: str, model: Callable[[], str | None], say: Callable[[str], None]
    ) -> None:
        self._model = model
        self._say = say
        self._sender = Sender(full_endpoint(endpoint), say)
        resource = Resource.create(
            {"service.name": "lostwax", "service.version": lostwax.__version__}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._waiting = BatchSpanProcessor(
            self._sender,
            max_queue_size=MAX_WAITING,
            schedule_delay_millis=EVERY_MS,
            max_export_batch_size=MAX_BATCH,
        )
        self._provider.add_span_processor(self._waiting)
        self._tracer = self._provider.get_tracer("lostwax", lostwax.__version__)
        self._callers = TraceContextTextMapPropagator()
        self._num_made = 0

    def tokens(self, gap_s: float | None, count: int) -> None:
        """A span is made at the end."""

    def prompt(self, num_tokens: int, num_cached: int) -> None:
        """A span is made at the end."""

    def first_token(self, seconds: float) -> None:
        """A span is made at the end."""

    def ended(self, record: RequestRecord) -> None:
        """A request has ended: its span waits to be sent."""
        operation = OPERATIONS.get(record.route)
        if operation is None or record.method != "POST":
            return
        model = self._model()
        end_ns = time.time_ns()
        span = self._tracer.start_span(
            f"{operation} {model}" if model else operation,
            context=self._callers.extract(record.trace_context),
            kind=SpanKind.SERVER,
            start_time=end_ns - round(record.total_s * 1e9),
            attributes=_attributes(record, operation, model),
        )
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        self._num_made += span.is_recording()  # not where the caller says that it samples others
        span.end(end_ns)

    def stop(self) -> None:
        """Send what waits, or nothing that is begun after SEND_S; say how many spans were lost.
        Blocks for twice that at most."""
        self._sender.end_within(SEND_S)
        self._waiting.shutdown()
        num_lost = self._num_made - self._sender.num_sent
        if num_lost:
            self._say(f"{num_lost} spans of traces were lost")


def _attributes(
    record: RequestRecord, operation: str, model: str | None
) -> dict[str, str | int | float | Sequence[str]]:
    found: dict[str, str | int | float | Sequence[str] | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "lostwax",
        "gen_ai.request.model": model,
        "gen_ai.request.id": record.request_id,
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status or None,
        "lostwax.outcome": record.outcome,
    }
    if record.generates:
        found |= {
            "gen_ai.response.model": model,
            "gen_ai.usage.input_tokens": record.num_prompt,
            "gen_ai.usage.output_tokens": record.num_output,
            "gen_ai.usage.cache_read.input_tokens": record.num_cached,
            "gen_ai.latency.time_to_first_token": record.ttft_s,
            "gen_ai.latency.e2e": record.total_s,
            "gen_ai.response.finish_reasons": (record.finish,) if record.finish else None,
        }
    if record.outcome in ("failed", "unavailable", "busy", "refused"):
        found["error.type"] = str(record.status)
    return {name: value for name, value in found.items() if value is not None}


class Sender(SpanExporter):
    """Sends batches to a collector, in the thread that the batches are made in."""

    def __init__(self, endpoint: str, say: Callable[[str], None]) -> None:
        # Its own lines are no lines of ours, and it has one for every batch that is lost.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._inner = OTLPSpanExporter(endpoint, timeout=SEND_S)
        self._endpoint = endpoint
        self._say = say
        self._fails = False
        self._until_s = math.inf
        self.num_sent = 0

    def end_within(self, seconds: float) -> None:
        """Begin to send nothing after so long."""
        self._until_s = time.monotonic() + seconds

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send these, or lose them; the first of a row of losses is told of."""
        if time.monotonic() > self._until_s:
            return SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        except Exception:  # whatever a collector makes it meet, the thread must go on
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.num_sent += len(spans)
        elif not self._fails:
            self._say(
                f"traces cannot be sent to {self._endpoint}; requests are served all the same"
            )
        self._fails = result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """Give up what is being sent."""
        self._inner.shutdown()


def full_endpoint(url: str) -> str:
    """The URL that spans are posted to: a collector's without a path takes them at /v1/traces."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1/traces"
