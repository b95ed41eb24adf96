"""One OpenTelemetry span a request that generates, in the terms of its GenAI conventions.

Spans are sent in the background, as OTLP over HTTP. A collector that is slow, gone or hostile costs
no request anything: what waits is bounded, the rest is dropped and counted, and one line says so.
What is sent is what is written here: the library's own variables (`OTEL_*`) change nothing of it.
Knows no text of any prompt or answer. Needs the extra `otel`; nobody else imports it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from urllib.parse import urlsplit

import httpx
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import lostwax
from lostwax.server.gateway.body_routes import ROUTES
from lostwax.server.gateway.prepare import KINDS
from lostwax.server.gateway.prepared import CHAT_ROUTES
from lostwax.server.gateway.request_record import RequestRecord

OPERATIONS = {
    path: "chat" if route in CHAT_ROUTES else "text_completion"
    for path, (route, _) in ROUTES.items()
    if route in KINDS
}
"""The conventions' names of what a route that generates does, by its path."""
SEND_S = 2.0
"""Within this a batch is sent and its answer read to the end, or it is lost."""
MAX_ANSWER = 64 << 10
"""Bytes of a collector's answer; who sends more is no collector."""
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
        resource = Resource(  # `Resource.create` would add what the environment says
            {
                "service.name": "lostwax",
                "service.version": lostwax.__version__,
                "telemetry.sdk.language": "python",
                "telemetry.sdk.name": "opentelemetry",
                "telemetry.sdk.version": sdk_version,
            }
        )
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=resource,
            span_limits=_no_limits(),
            shutdown_on_exit=False,
        )
        self._waiting = BatchSpanProcessor(
            self._sender,
            max_queue_size=MAX_WAITING,
            schedule_delay_millis=EVERY_MS,
            max_export_batch_size=MAX_BATCH,
            export_timeout_millis=SEND_S * 1e3,  # or a variable's
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
        # It waits for its thread for 30 s, whatever that hangs in.
        ending = threading.Thread(target=self._waiting.shutdown, daemon=True)
        ending.start()
        ending.join(2 * SEND_S)
        num_lost = self._num_made - self._sender.num_sent
        if num_lost:
            self._say(f"{num_lost} spans of traces were lost")


def _no_limits() -> SpanLimits:
    """None, rather than a variable's: the attributes are ours, few and short."""
    none = SpanLimits.UNSET
    return SpanLimits(
        max_attributes=none,
        max_events=none,
        max_links=none,
        max_span_attributes=none,
        max_event_attributes=none,
        max_link_attributes=none,
        max_attribute_length=none,
        max_span_attribute_length=none,
    )


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
    """Sends batches to a collector, in the thread that the batches are made in.

    Not the library's exporter: its time is one of each read, so that a byte a second holds it for
    ever; it reads answers of any length, takes a redirection for success and the headers of the
    environment.
    """

    def __init__(self, endpoint: str, say: Callable[[str], None]) -> None:
        # Its own lines are no lines of ours, and it has one for every span that is dropped.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
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
            is_sent = self._post(encode_spans(spans).SerializeToString())
        except Exception:  # whatever a collector makes it meet, the thread must go on
            is_sent = False
        if is_sent:
            self.num_sent += len(spans)
        elif not self._fails:
            self._say(
                f"traces cannot be sent to {self._endpoint}; requests are served all the same"
            )
        self._fails = not is_sent
        return SpanExportResult.SUCCESS if is_sent else SpanExportResult.FAILURE

    def _post(self, body: bytes) -> bool:
        """Whether the collector took it. Raises TimeoutError after SEND_S."""
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(self._post_in_time(body))
        finally:
            loop.close()  # `asyncio.run` would wait for a name that is still looked up

    async def _post_in_time(self, body: bytes) -> bool:
        headers = {
            "content-type": "application/x-protobuf",
            "user-agent": f"lostwax/{lostwax.__version__}",
        }
        num_read = 0
        async with (
            asyncio.timeout(SEND_S),  # of all of it; those of httpx are of each read
            httpx.AsyncClient(verify=self._tls, timeout=None, follow_redirects=False) as client,
            client.stream("POST", self._endpoint, content=body, headers=headers) as answer,
        ):
            if not answer.is_success:
                return False
            async for part in answer.aiter_raw():  # not unpacked: that may be any size
                num_read += len(part)
                if num_read > MAX_ANSWER:
                    return False
        return True

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made once: it reads a file of certificates."""
        return httpx.create_ssl_context()


def full_endpoint(url: str) -> str:
    """The URL that spans are posted to: a collector's without a path takes them at /v1/traces."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1/traces"
