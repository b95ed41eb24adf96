"""What fails inside is the operator's to read: clients hear a sentence and their request's id."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from fake_runtime import FakeRuntime
from fastapi import FastAPI
from http_server import running
from step_oracle import StepBatch

from lostwax.backends.artifact_writer import ArtifactUnwritable
from lostwax.backends.runtime.checkpoint_content import CheckpointMismatch
from lostwax.backends.runtime.error_sentence import described
from lostwax.ir.contract.step import StepResult
from lostwax.server.engine.failure_log import MAX_IDS, MAX_IN_WINDOW, WINDOW_S, FailureLog
from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.end_tasks import end_tasks
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.serve import ServeError, serve_engine
from lostwax.server.gateway.supervised import SupervisedEngine
from lostwax.server.gateway.tokenizer import Codec, IdCodec

BODY = {"prompt": [7, 1, 2], "max_tokens": 8, "ignore_eos": True, "temperature": 0}
SECRET = "/home/operator/weights: 7 exceeds (3, 4)"
"""Stands for what an exception's text may tell of the machine and of other requests."""


MISMATCH = """
import sys
from lostwax.backends.artifact_writer import ArtifactUnwritable
from lostwax.backends.runtime.checkpoint_content import CheckpointMismatch
from lostwax.server.engine.wire import EngineWire
with EngineWire(sys.argv[1]):
    raise CheckpointMismatch("a.safetensors is cut short; download it again")
"""


class Failing(FakeRuntime):
    """Fails at the second step of a prompt with 7 in it, and at the first of one with 8."""

    def run(self, batch: StepBatch) -> StepResult:
        cached = {held.token for held in self._cache.values()}
        if 8 in batch.tokens or (batch.entry == "decode" and 7 in cached):
            self._cache.clear()
            raise ZeroDivisionError(SECRET)
        return super().run(batch)


class BrokenCodec(IdCodec):
    """A codec whose text fails."""

    def piece(self, token: int) -> NoReturn:
        raise LookupError(SECRET)


@contextmanager
def _served(codec: Codec, log: list[str]) -> Generator[httpx.Client]:
    failures = FailureLog(log.append)
    core = EngineCore(Failing(), log=failures)
    app = create_app(InProcessEngine(core, failures), codec, Settings(), log=failures)
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


def _error(answer: httpx.Response) -> dict[str, Any]:
    """The error of a whole answer, or of a stream's last event."""
    if answer.headers["content-type"] == "application/json":
        return answer.json()["error"]
    lines = answer.text.splitlines()
    assert "event: error" in lines
    return json.loads(lines[lines.index("event: error") + 1].removeprefix("data: "))["error"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_step_is_told_by_its_id_and_logged_with_its_cause(stream: bool) -> None:
    log: list[str] = []
    with _served(IdCodec(), log) as client:
        headers = {"X-Request-Id": "mine-1"}
        answer = client.post("/v1/completions", json=BODY | {"stream": stream}, headers=headers)
        assert answer.status_code == (200 if stream else 500)
        assert answer.headers["x-request-id"] == "mine-1"
        error = _error(answer)
        assert (error["code"], error["type"]) == ("engine_error", "server_error")
        assert error["message"] == "the engine failed on request mine-1; the server's log says why"
        assert client.post("/v1/completions", json=BODY | {"prompt": [1]}).status_code == 200
    assert SECRET not in answer.text
    (said,) = log
    assert said.startswith(
        f"the decode step failed (request mine-1): ZeroDivisionError: {SECRET}\n  Traceback"
    )
    assert "raise ZeroDivisionError(SECRET)" in said


@pytest.mark.parametrize("stream", [False, True])
def test_what_nobody_expected_is_told_and_logged_in_the_same_way(stream: bool) -> None:
    log: list[str] = []
    with _served(BrokenCodec(), log) as client:
        body = BODY | {"prompt": [1, 2], "logprobs": 1, "stream": stream}
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == (200 if stream else 500)
        request_id = answer.headers["x-request-id"]
        error = _error(answer)
        assert (error["code"], error["type"]) == ("internal_error", "server_error")
        assert request_id in error["message"]
        while client.get("/health").json()[
            "running"
        ]:  # the answer's end comes before its request's
            time.sleep(0.01)
    assert SECRET not in answer.text
    (said,) = log
    assert said.startswith(f"internal error (request {request_id}): LookupError: {SECRET}\n  Trace")


def test_an_engine_in_this_process_that_ends_is_logged() -> None:
    log: list[str] = []
    with _served(IdCodec(), log) as client:
        answers = [client.post("/v1/completions", json=BODY | {"prompt": [8]}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [500, 500, 503]
        assert client.get("/health").status_code == 503
    assert SECRET not in "".join(answer.text for answer in answers)
    assert [text.partition(" (")[0].partition(":")[0] for text in log] == [
        *["the extend step failed"] * 3,
        "the engine ended",
    ]


ENDING = """
import sys
from test_failures import Failing
from lostwax.server.engine.options import PLAIN
from lostwax.server.engine.process import run_engine
run_engine(lambda _: Failing(), sys.argv[1], PLAIN)  # it meets each token as it warms up else
"""


def test_the_end_of_an_engine_process_is_explained_to_the_operator_alone() -> None:
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {folders!r}\n{ENDING}"
    announced: list[str] = []
    ready = threading.Semaphore(0)

    def announce(line: str) -> None:
        announced.append(line)
        if "is ready" in line:
            ready.release()

    engine = SupervisedEngine(
        lambda link: [sys.executable, "-c", code, link.address], announce=announce
    )
    app = create_app(engine, IdCodec(), Settings())
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        assert ready.acquire(timeout=30)
        answers = [client.post("/v1/completions", json=BODY | {"prompt": [8]}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [500, 500, 503]
        assert ready.acquire(timeout=30)
    assert SECRET not in "".join(answer.text for answer in answers)
    assert _error(answers[2])["message"] == (
        "the engine ended and is starting again; send the request again"
    )
    (why,) = [line for line in announced if "starting it again" in line]
    assert f"3 steps failed one after another, at last with ZeroDivisionError: {SECRET}" in why


def test_an_engine_that_cannot_even_be_started_ends_the_server() -> None:
    with pytest.raises(ServeError, match=r"did not start: FileNotFoundError: .*no-such"):
        serve_engine(
            lambda _: ["/no-such-program"],
            lambda engine, draining: create_app(engine, IdCodec(), Settings(), draining=draining),
            host="127.0.0.1",
            port=0,
            announce=lambda _: None,
        )


def test_an_error_of_ours_is_a_sentence_without_its_class() -> None:
    ours = CheckpointMismatch("a.safetensors is cut short; download it again")
    assert described(ours) == "a.safetensors is cut short; download it again"
    assert described(ZeroDivisionError(SECRET)) == f"ZeroDivisionError: {SECRET}"
    assert described(PermissionError("/x")) == "PermissionError: /x", "of the system, it says less"
    unwritable = ArtifactUnwritable("cannot write x; free some space")
    assert described(unwritable) == "cannot write x; free some space"
    with pytest.raises(ServeError, match=r"did not start: a\.safetensors is cut short; download"):
        serve_engine(
            lambda link: [sys.executable, "-c", MISMATCH, link.address],
            lambda engine, draining: create_app(engine, IdCodec(), Settings(), draining=draining),
            host="127.0.0.1",
            port=0,
            announce=lambda _: None,
        )


def _fail(log: FailureLog, ids: Sequence[str] = ()) -> None:
    log("it failed", ValueError("x"), ids)


def test_the_log_is_bounded_in_rate_and_says_what_it_left_out() -> None:
    written: list[str] = []
    seconds = [0.0]
    log = FailureLog(written.append, lambda: seconds[0])
    for _ in range(MAX_IN_WINDOW + 5):
        _fail(log)
    assert len(written) == MAX_IN_WINDOW
    seconds[0] = WINDOW_S
    _fail(log)
    assert written[MAX_IN_WINDOW:] == [
        "5 more failures were not logged",
        "it failed: ValueError: x\n  ValueError: x",
    ]


def test_the_log_names_the_requests_up_to_a_number() -> None:
    written: list[str] = []
    _fail(FailureLog(written.append), [f"r{i}" for i in range(MAX_IDS + 3)])
    assert f"r{MAX_IDS - 1} and 3 more)" in written[0]
    assert f"r{MAX_IDS}" not in written[0]


def test_a_quoted_message_cannot_look_like_a_line_of_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    FailureLog()("it failed", ValueError("x\nlistening on http://evil\x1b[2J"))
    head, *rest = capsys.readouterr().err.splitlines()
    assert head == "it failed: ValueError: x listening on http://evil\\x1b[2J"
    assert [line[:2] for line in rest] == ["  "] * len(rest) != []
    assert "\x1b" not in "".join(rest)


def test_a_request_that_the_server_cuts_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lostwax.server.gateway.http_server.LAST_ANSWERS_S", 0.05)
    app, asked, ends = FastAPI(), threading.Event(), list[str]()

    @app.get("/")
    async def deaf() -> None:  # pyright: ignore[reportUnusedFunction]
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    def ask() -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url, timeout=20)

    with running(app) as url:
        asking = threading.Thread(target=ask)
        asking.start()
        assert asked.wait(20)
    asking.join()
    assert ends == ["cancelled"]
    assert capfd.readouterr().err == ""


def test_a_caller_that_is_cancelled_while_it_ends_a_task_hears_of_it() -> None:
    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)

    async def run() -> None:
        task = asyncio.create_task(slow_to_end())
        await asyncio.sleep(0)
        ending = asyncio.create_task(end_tasks(task))
        await asyncio.sleep(0.01)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        await asyncio.wait([task])

    asyncio.run(run())
