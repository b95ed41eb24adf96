"""Nobody's answer costs no steps: what was left or has ended is cancelled in the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
from fake_runtime import FakeLimits, FakeRuntime, generate
from http_server import small_codec

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Cancel, Command, Failed, Output, Submit
from lostwax.server.gateway.completions import CompletionForm
from lostwax.server.gateway.engine_client import (
    EngineLost,
    Mailboxes,
    RequestFailed,
    stream_group,
)
from lostwax.server.gateway.generation import Generation
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.prepared import AnswerOptions, Prepared
from lostwax.server.gateway.transcript import Delta

MAX_TOKENS = 400
FEW = 60
"""Steps; the engine does several while its client is told, and never hundreds."""
PROMPT = [3, 1, 4]
LIMITS = replace(FakeLimits(), max_context=512, num_pages=1025)


def _submits(count: int = 1) -> list[Submit]:
    names = [f"r{i}" for i in range(count)]
    return [
        Submit(request=name, prompt=PROMPT, max_tokens=MAX_TOKENS, ignore_eos=True)
        for name in names
    ]


def _generation(
    client: InProcessEngine, stops: list[str], count: int = 1, n: int = 1
) -> Generation[Delta]:
    """`n` choices to each of `count` prompts."""
    options, submits = AnswerOptions(stops=stops, num_choices=n), _submits(count)
    form = CompletionForm(options, submits, small_codec())
    return Generation(Prepared(options=options, submits=submits), form, client, "fake", "mine")


def _steps(ask: Callable[[InProcessEngine], Awaitable[None]]) -> int:
    """Steps that the engine runs until it has nothing left to do."""
    runtime = FakeRuntime(LIMITS)
    core = EngineCore(runtime)

    async def run() -> None:
        engine = InProcessEngine(core)
        await engine.start()
        runtime.batches.clear()
        await ask(engine)
        while core.has_work:
            await asyncio.sleep(0)
        await engine.stop()

    asyncio.run(run())
    pages = core.scheduler.pages
    assert pages.num_free == pages.num_usable
    return len(runtime.batches)


async def _leave_stream(engine: InProcessEngine) -> None:
    async with aclosing(engine.stream(_submits(2))) as outputs:
        await anext(outputs)


async def _leave_chunks(engine: InProcessEngine) -> None:
    async with aclosing(_generation(engine, []).chunks()) as chunks:
        await anext(chunks)


async def _leave_answer(engine: InProcessEngine) -> None:
    task = asyncio.create_task(_generation(engine, []).answer())
    async with aclosing(engine.stream([Submit(request="x", prompt=[1], max_tokens=2)])) as beside:
        async for _ in beside:
            pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _stop() -> str:
    """A string that the answer's first tokens spell."""
    return small_codec().decode(generate(PROMPT, 8)[4:])


async def _stop_whole(engine: InProcessEngine) -> None:
    assert b'"finish_reason":"stop"' in await _generation(engine, [_stop()], 2).answer()


async def _stop_choices(engine: InProcessEngine) -> None:
    answer = json.loads(await _generation(engine, [_stop()], n=2).answer())
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "stop"]


async def _stop_streamed(engine: InProcessEngine) -> None:
    found = [chunk async for chunk in _generation(engine, [_stop()]).chunks() if chunk]
    assert json.loads(found[-1])["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "ask",
    [_leave_stream, _leave_chunks, _leave_answer, _stop_whole, _stop_choices, _stop_streamed],
)
def test_an_answer_that_nobody_waits_for_is_given_up(
    ask: Callable[[InProcessEngine], Awaitable[None]],
) -> None:
    assert _steps(ask) < FEW


def test_an_answer_that_is_waited_for_takes_all_its_steps() -> None:
    async def whole(engine: InProcessEngine) -> None:
        async for _ in engine.stream(_submits()):
            pass

    assert _steps(whole) == MAX_TOKENS


class Noted(Mailboxes):
    """Notes which groups were closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[str] = []

    def close(self, names: Sequence[str]) -> None:
        self.closed += names
        super().close(names)


async def _sent(mail: list[Output | Failed], lost: bool = False) -> list[Command]:
    """What a group of two requests sends when this comes, and then its reader leaves."""
    boxes, sent = Noted(), list[Command]()
    async with aclosing(stream_group(boxes, sent.append, _submits(2))) as outputs:
        first = asyncio.ensure_future(anext(outputs))
        await asyncio.sleep(0)
        for event in mail:
            boxes.deliver(event)
        if lost:
            boxes.fail_all(EngineLost("gone"))
        try:
            await first
            for _ in mail[1:]:
                await anext(outputs)
        except (RequestFailed, EngineLost):
            pass
    assert boxes.closed == ["r0", "r1"]
    return sent[2:]


def test_exactly_the_unfinished_requests_of_a_group_are_cancelled() -> None:
    going, done = Output(request="r0"), Output(request="r0", finish="stop")
    failed = Failed("r0", "engine_error", "x")
    last = Output(request="r1", finish="length")
    assert asyncio.run(_sent([going])) == [Cancel("r0"), Cancel("r1")]
    assert asyncio.run(_sent([done])) == [Cancel("r1")]
    assert asyncio.run(_sent([failed])) == [Cancel("r1")]
    assert asyncio.run(_sent([done, last])) == []
    assert asyncio.run(_sent([], lost=True)) == []
