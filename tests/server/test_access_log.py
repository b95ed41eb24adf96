"""One line a request, which says how it went and nothing that it said; text or JSON."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fake_runtime import FakeRuntime
from http_server import running

from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.log_lines import LogFormat, LogLines
from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.settings import Settings
from lostwax.server.gateway.tokenizer import IdCodec

Capture = pytest.CaptureFixture[str]
BODY: dict[str, Any] = {"prompt": [3, 1, 4, 1, 5], "temperature": 0, "ignore_eos": True}
THEN = datetime(2026, 11, 29, 13, 41, 2, 123456, UTC)


@contextmanager
def served(runtime: FakeRuntime | None = None, **settings: Any) -> Generator[httpx.Client]:
    engine = InProcessEngine(EngineCore(runtime or FakeRuntime()))
    app = create_app(engine, IdCodec(), Settings(**settings))
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


def test_nothing_is_written_unless_it_is_asked_for(capsys: Capture) -> None:
    with served() as client:
        client.post("/v1/completions", json=BODY | {"max_tokens": 3})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [False, True])
def test_a_line_says_how_a_request_went(capsys: Capture, *, stream: bool) -> None:
    with served(log_requests=True) as client:
        for _ in range(2):
            client.post(
                "/v1/completions",
                json=BODY | {"max_tokens": 3, "stream": stream},
                headers={"x-request-id": "mine-7"},
            )
    first, second = capsys.readouterr().err.splitlines()
    pattern = (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 127\.0\.0\.1 POST /v1/completions 200 length"
        r" in=5 cached=%d out=3 ttft=\d+\.\dms total=\d+\.\dms id=mine-7"
    )
    assert re.fullmatch(pattern % 0, first)
    assert re.fullmatch(pattern % 4, second)


def test_in_json_a_line_is_an_object(capsys: Capture) -> None:
    with served(log_requests=True, log_format="json") as client:
        client.post("/v1/completions", json=BODY | {"max_tokens": 3})
        client.get("/v1/models/none")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first["time"].endswith("Z")
    assert first["total_ms"] >= first["ttft_ms"] > 0
    wanted = {
        "level": "info",
        "source": "gateway",
        "event": "request",
        "client": "127.0.0.1",
        "method": "POST",
        "route": "/v1/completions",
        "status": 200,
        "outcome": "length",
        "prompt_tokens": 5,
        "cached_tokens": 0,
        "generated_tokens": 3,
        "finish_reason": "length",
    }
    assert {name: first[name] for name in wanted} == wanted
    assert (second["status"], second["outcome"]) == (404, "refused")
    assert "prompt_tokens" not in second


def test_several_prompts_are_summed(capsys: Capture) -> None:
    with served(log_requests=True) as client:
        body = BODY | {"prompt": [[3, 1, 4, 1, 5], [2, 7, 1, 8, 2, 8]], "max_tokens": 3}
        for _ in range(2):
            client.post("/v1/completions", json=body)
    _, second = capsys.readouterr().err.splitlines()
    assert " in=11 cached=8 out=6 " in second


def test_probes_are_told_of_only_where_they_fail(capsys: Capture) -> None:
    engine = InProcessEngine(EngineCore(FakeRuntime()))
    app = create_app(engine, IdCodec(), Settings(log_requests=True))
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        for path in ("/health", "/ready", "/startup"):
            assert client.get(path).status_code == 200
        engine._state = "dead"  # pyright: ignore[reportPrivateUsage]
        client.get("/ready")
    (line,) = capsys.readouterr().err.splitlines()
    assert "GET /ready 503 unavailable" in line


def test_a_client_that_leaves_is_told_of_with_what_it_had(capsys: Capture) -> None:
    with served(FakeRuntime(step_s=0.02), log_requests=True) as client:
        body = BODY | {"max_tokens": 50, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            next(answer.iter_lines())
        client.get("/v1/models")
    told = capsys.readouterr().err
    assert re.search(r"POST /v1/completions 200 cancelled in=5 cached=0 out=\d+ ", told)
    assert "out=50" not in told


def test_a_stream_that_ends_in_an_error_has_the_errors_status(capsys: Capture) -> None:
    class Fails(FakeRuntime):
        """Fails at a decode step."""

        def run(self, batch: Any) -> Any:
            if batch.entry == "decode" and self.broken:
                raise RuntimeError("secret inside")
            return super().run(batch)

        broken = False

    runtime = Fails()
    with served(runtime, log_requests=True) as client:
        runtime.broken = True
        body = BODY | {"max_tokens": 5, "stream": True}
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == 200
        assert "event: error" in answer.text
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "POST /v1" in x]
    assert " 500 failed in=5 " in line


def test_foreign_words_stay_on_their_line(capsys: Capture) -> None:
    with served(log_requests=True) as client:
        port = client.base_url.port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port)) as raw:
            head = "F`R|GE /%0a%1b[2J?key=secret HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            raw.sendall((head + "X-Request-Id: a\tb\r\n\r\n").encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 404")
    (line,) = capsys.readouterr().err.splitlines()
    assert " F`R|GE other 404 refused " in line
    assert "secret" not in line
    assert "\t" not in line


def test_a_failure_in_json_is_one_line_with_its_trace(capsys: Capture) -> None:
    log = FailureLog(LogLines("json", "engine", lambda: THEN).failure)
    try:
        raise ValueError("culprit\n\x1b[2Jand more")
    except ValueError as error:
        log("the step failed", error, ["id-1"])
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["time"], told["level"]) == ("2026-11-29T13:41:02.123Z", "error")
    assert told["message"].startswith("the step failed (request id-1): ValueError: culprit")
    assert any("raise ValueError" in each for each in told["trace"])
    assert not any("\x1b" in each for each in [told["message"], *told["trace"]])


def test_what_happens_is_said_in_the_same_format(capsys: Capture) -> None:
    LogLines("text").say("  load weights   1.00 s")
    LogLines("json", "engine", lambda: THEN).say("  load weights   1.00 s")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "  load weights   1.00 s"
    assert json.loads(second) == {
        "time": "2026-11-29T13:41:02.123Z",
        "level": "info",
        "source": "engine",
        "message": "load weights   1.00 s",
    }


class _Full:
    """Standard error on a disk that has room for some writes only."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.text = ""

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


@pytest.mark.parametrize(
    "error", [OSError(28, "no space"), BrokenPipeError(), ValueError("I/O operation on closed")]
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_that_cannot_be_written_ends_nothing_and_is_counted(
    error: Exception, form: LogFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _Full(error)
    monkeypatch.setattr("sys.stderr", stream)
    lines = LogLines(form)
    lines.say("first")
    lines.failure("second\n  trace")
    lines.event("third", {}, "third")
    stream.error = None
    lines.say("fourth")
    lines.say("fifth")
    assert "fourth" in stream.text
    assert stream.text.count("3 lines before the last could not be written") == 1
    assert len(stream.text.splitlines()) == 3


def test_a_request_is_answered_though_its_line_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(log_requests=True) as client, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", _Full(BrokenPipeError()))
        answers = [client.post("/v1/completions", json=BODY | {"max_tokens": 3}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
