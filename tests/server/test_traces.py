"""A span a request: what it says, whose child it is, and that no collector can hurt a request."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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
        "opentelemetry.exporter.otlp.proto.common", reason="the extra `otel` is not installed"
    )


def well(handler: BaseHTTPRequestHandler) -> None:
    """As a collector answers."""
    handler.send_response(200)
    handler.end_headers()


def with_a_body_that_drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    drip(handler)


def with_a_head_that_drips(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    drip(handler)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte often enough for any timeout of a read, for 40 s or until nobody reads."""
    with suppress(OSError):
        for _ in range(80):
            handler.wfile.write(b" ")
            time.sleep(0.5)


def without_end(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        for _ in range(10_000):
            handler.wfile.write(bytes(1 << 16))


def with_a_redirection(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(301)
    handler.send_header("location", "/elsewhere")
    handler.send_header("content-length", "0")
    handler.end_headers()


class Collector:
    """Takes spans over HTTP and then answers so; `held` keeps it from answering."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None] = well) -> None:
        self.answer = answer
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.held = threading.Event()
        self.held.set()

    @property
    def spans(self) -> list[Any]:
        """Those that came, in order."""
        return [
            span
            for resource in self.resources
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resources(self) -> list[Any]:
        """What spans came of, a batch."""
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

        found: list[Any] = []
        for body in self.bodies:
            request: Any = service.ExportTraceServiceRequest.FromString(body)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
            found += request.resource_spans
        return found

    @contextmanager
    def running(self) -> Generator[str]:
        """Its URL."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.paths.append(self.path)
                collector.headers.append({k.lower(): v for k, v in self.headers.items()})
                collector.held.wait(20)
                collector.bodies.append(body)
                collector.answer(self)

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


def test_every_route_that_generates_has_spans() -> None:
    collector = Collector()
    with collector.running() as endpoint, served(endpoint) as client:
        paths = client.get("/openapi.json").json()["paths"]
        posted = [path for path, methods in paths.items() if "post" in methods]
        for path in posted:
            assert client.post(path, json={"nothing": "that is known"}).status_code == 400
        # What takes too long to answer is what generates.
        generating = {path for path in posted if "504" in paths[path]["post"]["responses"]}
    assert len(generating) >= 6
    names = {attributes(span)["http.route"]: span.name for span in collector.spans}
    assert names.keys() == generating
    assert (names["/v1/messages"], names["/generate"]) == ("chat m", "text_completion m")
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    told = page.partition("\n## Traces\n")[2].partition("), as OTLP")[0]
    assert {path for path in posted if f"`{path}`" in told} == generating


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


@pytest.mark.parametrize(
    "answer",
    [with_a_body_that_drips, with_a_head_that_drips, without_end, with_a_redirection],
)
def test_who_does_not_answer_as_a_collector_does_has_lost_the_spans_in_time(
    answer: Callable[[BaseHTTPRequestHandler], None], capsys: Capture
) -> None:
    collector = Collector(answer)
    with collector.running() as endpoint:
        with served(endpoint) as client:
            client.post("/v1/completions", json=BODY)
            time.sleep(1.2)  # the batch is on its way
            begun = time.monotonic()
        assert time.monotonic() - begun < 6
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "cannot be sent" in line]) == 1
    assert lines[-1] == "1 spans of traces were lost"
    assert len(collector.spans) == 1  # it is sent once, and nowhere else


def test_an_answer_is_read_no_further_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from lostwax.server.gateway import traces

    num_written = 0

    def answer(handler: BaseHTTPRequestHandler) -> None:
        nonlocal num_written
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            while num_written < 1 << 28:
                num_written += handler.wfile.write(bytes(1 << 16))

    monkeypatch.setattr(traces, "SEND_S", 20.0)  # the bytes end it, not the time
    with Collector(answer).running() as endpoint:
        heard = list[str]()
        traces.Sender(endpoint, heard.append).export([])
        assert len(heard) == 1
        time.sleep(0.2)
    assert num_written < 1 << 25  # what the sockets hold


def test_the_end_waits_for_no_thread_that_hangs(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from lostwax.server.gateway import traces

    def hang(sender: object, body: bytes) -> bool:
        time.sleep(20)
        return True

    monkeypatch.setattr(traces.Sender, "_post", hang)
    with served("http://127.0.0.1:1") as client:
        client.post("/v1/completions", json=BODY)
        time.sleep(1.2)  # the batch is on its way
        begun = time.monotonic()
    assert time.monotonic() - begun < 6
    assert "1 spans of traces were lost" in capsys.readouterr().err


def test_no_variable_of_the_library_changes_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_ATTRIBUTE_COUNT_LIMIT": "1",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1",
        "OTEL_RESOURCE_ATTRIBUTES": "theirs=1",
        "OTEL_SERVICE_NAME": "theirs",
        "OTEL_EXPORTER_OTLP_HEADERS": "theirs=1",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }.items():
        monkeypatch.setenv(name, value)
    collector = Collector()
    with collector.running() as endpoint, served(endpoint) as client:
        assert client.post("/v1/completions", json=BODY).is_success
    (span,) = collector.spans
    said = attributes(span)
    assert len(said) > 10
    assert said["http.route"] == "/v1/completions"
    (resource,) = collector.resources
    of_resource = attributes(resource.resource)
    assert of_resource["service.name"] == "lostwax"
    assert set(of_resource) == {
        "service.name",
        "service.version",
        "telemetry.sdk.language",
        "telemetry.sdk.name",
        "telemetry.sdk.version",
    }
    (headers,) = collector.headers
    assert headers["content-type"] == "application/x-protobuf"
    assert not {"theirs", "content-encoding"} & set(headers)


def test_a_library_that_is_turned_off_is_refused_and_the_variable_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    otherwise_refused = ("--ssl-keyfile", __file__)  # a server would never end
    status, _, err = lostwax(
        capsys, "serve", "--otlp-traces-endpoint", "http://127.0.0.1:4318", *otherwise_refused
    )
    assert status == 1
    assert "OTEL_SDK_DISABLED is true; unset it" in one_sentence(err)


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
