"""A request whose engine ended is told when the next one is expected, not to come back at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from http_server import small_codec

from lostwax.server.engine.messages import EngineInfo, Output, Stats, Submit
from lostwax.server.gateway.completions import CompletionForm
from lostwax.server.gateway.engine_client import STOPPED, EngineLost, EngineState
from lostwax.server.gateway.errors import RETRY_AFTER_S, ApiError
from lostwax.server.gateway.generation import Generation
from lostwax.server.gateway.prepared import AnswerOptions, Prepared
from lostwax.server.gateway.readiness import lost
from lostwax.server.gateway.start_clock import Progress


class _Lost:
    """An engine that ends after one output; it is starting again unless there is no progress."""

    state: EngineState = "starting"
    info: EngineInfo | None = None
    stats: Stats | None = None
    num_restarts = 0

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    async def start(self) -> None:
        """Nothing is started."""

    async def stop(self, reason: EngineLost = STOPPED) -> None:
        """Nothing is stopped."""

    async def stream(self, requests: Sequence[Submit]) -> AsyncGenerator[Output, None]:
        yield Output(request=requests[0].request)
        raise EngineLost("it ended")

    def cancel(self, request: str) -> None:
        """Nothing runs."""


STARTING = Progress(phase="load weights", percent=10, left_s=41.5)


@pytest.mark.parametrize(("progress", "retry_s"), [(STARTING, 42), (None, RETRY_AFTER_S)])
def test_retry_after_is_what_the_start_still_takes(progress: Progress | None, retry_s: int) -> None:
    error = lost(_Lost(progress), EngineLost("it ended", "gone"))
    assert (error.status, error.code, error.message) == (503, "gone", "it ended")
    assert error.headers["Retry-After"] == str(retry_s)


def test_an_answer_under_way_says_so_too() -> None:
    submits = [Submit(request="a", prompt=[1], max_tokens=2)]
    options = AnswerOptions()
    form = CompletionForm(options, submits, small_codec())
    prepared = Prepared(options=options, submits=submits)
    generation = Generation(prepared, form, _Lost(STARTING), "fake", "mine")
    with pytest.raises(ApiError, match="it ended") as told:
        asyncio.run(generation.answer())
    assert told.value.headers["Retry-After"] == "42"
