"""A span a request: what it says, whose child it is, and that no collector can hurt a request."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from command_line import lostwax, one_sentence
from fake_runtime import FakeRuntime
from http_server import running

from lostwax.cli import serve as command
from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.settings import Settings
from lostwax.server.gateway.tokenizer import IdCodec

Capture = pytest.CaptureFixture[str]
BODY: dict[str, Any] = {"prompt": [3, 1, 4, 1, 5], "temperature": 0, "ignore_eos": True}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
IS_SERVER, IS_ERROR = 2, 2
"""SpanKind and StatusCode of the protocol."""


@pytest.fixture(autouse=True)
def _installed() -> None:  # pyright: ignore[reportUnusedFunction]
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http", reason="the extra `otel` is not installed"
    )


class Collector:
    """Takes spans over HTTP; `held` keeps it from answering."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.held = threading.Event()
        self.held.set()

    @property
    def spans(self) -> list[Any]:
        """Those that came, in order."""
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

        found: list[Any] = []
        for body in self.bodies:
            request: Any = service.ExportTraceServiceRequest.FromString(body)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
            for resource in request.resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    @contextmanager
    def running(self) -> Generator[str]:
        """Its URL."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.paths.append(self.path)
                collector.held.wait(20)
                collector.bodies.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.held.set()
            server.shutdown()
            thread.join()
            server.server_close()


@contextmanager
def served(endpoint: str) -> Generator[httpx.Client]:
    engine = InProcessEngine(EngineCore(FakeRuntime()))
    app = create_app(engine, IdCodec(), Settings(model="m", otlp_traces_endpoint=endpoint))
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


def attributes(span: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in span.attributes:
        value = each.value
        kind = value.WhichOneof("value")
        found[each.key] = getattr(value, kind)
        if kind == "array_value":
            found[each.key] = [one.string_value for one in value.array_value.values]
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_a_span_says_how_a_request_went_and_is_its_callers_child(*, stream: bool) -> None:
    collector = Collector()
    begun_ns = time.time_ns()
    with collector.running() as endpoint, served(endpoint) as client:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine-7"}
        body = BODY | {"max_tokens": 3, "stream": stream}
        for _ in range(2):
            assert client.post("/v1/completions", json=body, headers=headers).is_success
        client.get("/health")
        client.get("/v1/models")
    first, second = collector.spans
    assert set(collector.paths) == {"/v1/traces"}
    assert first.name == "text_completion m"
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, PARENT)
    assert first.kind == IS_SERVER
    assert first.status.code != IS_ERROR
    assert first.span_id != second.span_id
    said = attributes(first)
    latencies = [said.pop(f"gen_ai.latency.{name}") for name in ("time_to_first_token", "e2e")]
    assert 0 < latencies[0] <= latencies[1]
    took_s = (first.end_time_unix_nano - first.start_time_unix_nano) / 1e9
    assert took_s == pytest.approx(latencies[1], rel=0.2, abs=1e-3)
    assert begun_ns <= first.start_time_unix_nano + 10**7
    assert first.end_time_unix_nano <= time.time_ns()
    assert said == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "lostwax",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.request.id": "mine-7",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.response.finish_reasons": ["length"],
        "http.request.method": "POST",
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
        "lostwax.outcome": "length",
    }
    assert attributes(second)["gen_ai.usage.cache_read.input_tokens"] == 4


def test_a_refusal_has_a_span_and_what_the_caller_does_not_sample_has_none() -> None:
    collector = Collector()
    with collector.running() as endpoint, served(f"{endpoint}/of/mine") as client:
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        assert client.post("/v1/completions", json=BODY, headers=unsampled).is_success
        odd = {"traceparent": "nonsense"}
        assert client.post("/v1/completions", json={"prompt": 1}, headers=odd).status_code == 400
    (span,) = collector.spans
    assert collector.paths == ["/of/mine"]
    assert span.parent_span_id == b""
    said = attributes(span)
    assert (said["error.type"], said["lostwax.outcome"]) == ("400", "refused")
    assert "gen_ai.usage.output_tokens" not in said


def test_a_collector_that_is_gone_is_one_line_and_no_request_fails(capsys: Capture) -> None:
    with served("http://127.0.0.1:1") as client:
        for _ in range(3):
            assert client.post("/v1/completions", json=BODY).is_success
            time.sleep(1.1)  # a batch each
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "cannot be sent" in line] == [lines[0]]
    assert lines[1:] == ["3 spans of traces were lost"]


def test_a_collector_that_never_answers_holds_up_nobody(capsys: Capture) -> None:
    collector = Collector()
    with collector.running() as endpoint:
        collector.held.clear()
        with served(endpoint) as client:
            client.post("/v1/completions", json=BODY)
            time.sleep(1.2)  # the batch is on its way
            begun = time.monotonic()
            assert client.post("/v1/completions", json=BODY).is_success
            assert time.monotonic() - begun < 1
            begun = time.monotonic()
        assert time.monotonic() - begun < 6
    assert "spans of traces were lost" in capsys.readouterr().err


def test_without_the_extra_the_option_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def none(_: str) -> None:
        return None

    monkeypatch.setattr(command, "find_spec", none)
    status, _, err = lostwax(capsys, "serve", "--otlp-traces-endpoint", "http://127.0.0.1:4318")
    assert status == 1
    assert "pip install 'lostwax[otel]'" in one_sentence(err)


def test_nobody_waits_for_libraries_that_were_not_asked_for() -> None:
    code = "import sys, lostwax.server.gateway.serve; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
