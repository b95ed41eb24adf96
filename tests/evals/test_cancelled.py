"""A deadline or Ctrl-C ends an evaluation whose gateway runs in its own process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import httpx
import pytest
from fake_runtime import FakeRuntime

from lostwax.evals.run import Runner
from lostwax.evals.send import Patience, RequestFailed, Sender
from lostwax.evals.task import Answer, Example, Grade, Sampling, Task, Text
from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import IdCodec

BODY = {"prompt": [3, 1], "max_tokens": 40, "ignore_eos": True, "return_token_ids": True}
STEP_S = 0.05
"""Forty tokens take two seconds: no answer is there before the test ends it."""


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_around_an_in_process_request_ends_it(stream: bool) -> None:
    core = EngineCore(FakeRuntime(step_s=STEP_S))

    async def run() -> None:
        app = create_app(InProcessEngine(core), IdCodec(), Settings())
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1") as http,
        ):
            sender = Sender(http, Patience(timeout_s=0.2, retries=0))
            with pytest.raises(RequestFailed, match=r"no answer within 0\.2 s"):
                await sender.post("/completions", BODY | {"stream": stream})
            while core.has_work:  # what nobody waits for is not computed
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 20))


def _right(_: Example, answer: Answer) -> Grade:
    return Grade(correct=True, answer=answer.text, reason="correct")


TASK = Task(
    "t",
    tuple(Example(id=f"e{n}", kind="exact", request=Text("x"), reference=None) for n in range(3)),
    Sampling(),
    _right,
)


class _Stopping(httpx.AsyncBaseTransport):
    """Sends Ctrl-C to this process with the first request, then waits and does as it is told."""

    def __init__(self, cancelled: Callable[[], None]) -> None:
        self._cancelled = cancelled
        self._is_first = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._is_first:
            self._is_first = False
            os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self._cancelled()
            raise
        raise AssertionError("Ctrl-C ended nothing")


def _fail() -> None:
    raise RuntimeError("a transport that fails because it was cancelled")


@pytest.mark.parametrize("cancelled", [lambda: None, _fail], ids=["ends", "fails"])
def test_ctrl_c_ends_a_run_whatever_its_requests_make_of_it(cancelled: Callable[[], None]) -> None:
    async def run() -> None:
        transport = _Stopping(cancelled)
        async with httpx.AsyncClient(transport=transport, base_url="http://x/v1") as http:
            await Runner(Sender(http, Patience()), "m").run(TASK, Sampling(), None)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())


def test_ctrl_c_ends_a_run_in_process() -> None:
    core = EngineCore(FakeRuntime(step_s=STEP_S))

    async def run() -> None:
        app = create_app(InProcessEngine(core), IdCodec(), Settings())
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1") as http,
        ):
            asking = asyncio.create_task(http.post("/completions", json=BODY))
            while not core.has_work:
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            await asking

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())
