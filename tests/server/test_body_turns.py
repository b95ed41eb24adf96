"""Bodies wait for their turn, for no template that they need not, and give it back; what reads them
is bounded, and heard by nobody."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import loud_body_process
import msgspec
import pytest
from body_processes import Begun
from loud_body_process import MUCH, SAID, WRITTEN
from scripted_runtime import CODEC, EOS_ID, VOCAB

from lostwax.server.engine.messages import EngineInfo
from lostwax.server.formats.template_apart import translated
from lostwax.server.gateway.body_process import MAX_MEMORY_BYTES
from lostwax.server.gateway.body_reader import (
    LARGE_BODY_BYTES,
    NUM_PROCESSES,
    SMALL_BODY_BYTES,
    BodyReader,
)
from lostwax.server.gateway.body_turns import MAX_WAITING
from lostwax.server.gateway.chat_settings import ChatSettings
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import read_body
from lostwax.server.gateway.prepared import Answered, Job, Prepared, Refused

INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=4096,
    max_reqs=1,
    max_top_logprobs=20,
    eos_token_ids=(EOS_ID,),
)
JOB = Job(route="completions", model="fake", info=INFO, max_tokens=4096)


def _body(prompt: str) -> bytes:
    """A body that is large enough for a process."""
    return msgspec.json.encode({"prompt": prompt}) + b" " * LARGE_BODY_BYTES


class _Gated(BodyReader):
    """Reads in place of its processes, behind a gate, and counts what was read to its end."""

    def __init__(self) -> None:
        super().__init__(CODEC)
        self.gate = asyncio.Event()
        self.num_begun = 0
        self.num_read = 0

    async def _read_apart(self, body: bytes, job: Job) -> Prepared | Answered | Refused:
        self.num_begun += 1
        await self.gate.wait()
        self.num_read += 1
        return read_body(body, job, CODEC)

    async def ask(self, count: int) -> list[asyncio.Task[Prepared | Answered]]:
        """So many reads, begun or waiting or refused."""
        asked = [asyncio.create_task(self.read(_body("x"), JOB)) for _ in range(count)]
        for _ in range(3):
            await asyncio.sleep(0)
        return asked


class _GatedTemplates(_Gated):
    """Has the gate before templates alone."""

    async def _read_apart(self, body: bytes, job: Job) -> Prepared | Answered | Refused:
        if job.chats.template is None:
            return read_body(body, job, CODEC)
        return await super()._read_apart(body, job)


@asynccontextmanager
async def _gated(kind: type[_Gated] = _Gated) -> AsyncGenerator[_Gated]:
    reader = kind()
    try:
        yield reader
    finally:
        await reader.stop()


async def _leave(asked: list[asyncio.Task[Prepared | Answered]]) -> None:
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert all(task.cancelled() for task in asked)


def test_a_client_that_leaves_the_queue_gives_its_place_to_another() -> None:
    async def read() -> None:
        async with _gated() as reader:
            first = await reader.ask(NUM_PROCESSES)
            for _ in range(3):
                waiting = await reader.ask(MAX_WAITING)
                assert not any(task.done() for task in waiting)
                (refused,) = await reader.ask(1)
                with pytest.raises(ApiError, match="too many large requests wait"):
                    await refused
                await _leave(waiting)
            waiting = await reader.ask(MAX_WAITING)
            reader.gate.set()
            assert len(await asyncio.gather(*first, *waiting)) == NUM_PROCESSES + MAX_WAITING

    asyncio.run(read())


def test_a_body_whose_client_left_is_read_to_its_end_and_its_turn_given_back() -> None:
    async def read() -> None:
        async with _gated() as reader:
            await _leave(await reader.ask(NUM_PROCESSES))
            assert (reader.num_begun, reader.num_read) == (NUM_PROCESSES, 0)
            later = await reader.ask(NUM_PROCESSES)
            assert reader.num_begun == NUM_PROCESSES, "turns are taken until the bodies are read"
            reader.gate.set()
            await asyncio.gather(*later)
            assert reader.num_read == 2 * NUM_PROCESSES

    asyncio.run(read())


CHAT = b'{"messages": [{"role": "user", "content": "x"}]}'
TEXT = b'{"prompt": "x", "messages": null}'


@pytest.mark.parametrize("num_bytes", [0, SMALL_BODY_BYTES + 1, LARGE_BODY_BYTES + 1])
def test_only_chats_wait_for_templates_whatever_the_size(num_bytes: int) -> None:
    chats = ChatSettings(template=translated("t", "{{ messages[0].content }}"))
    chat = msgspec.structs.replace(JOB, route="chat", chats=chats)
    tokenize = msgspec.structs.replace(chat, route="tokenize")

    async def read() -> None:
        async with _gated(_GatedTemplates) as reader:
            many = [CHAT.ljust(LARGE_BODY_BYTES + 1)] * (MAX_WAITING - 1)
            bodies = [CHAT.ljust(num_bytes), *many]
            hang = [asyncio.create_task(reader.read(body, chat)) for body in bodies]
            counted = asyncio.create_task(reader.read(CHAT.ljust(num_bytes), tokenize))
            for body, job in ((TEXT, tokenize), (b'{"prompt": "x"}', JOB)):
                await asyncio.wait_for(reader.read(body.ljust(num_bytes), job), 5)
            assert (reader.num_begun, reader.num_read) == (1, 0), "one is rendered at a time"
            assert not counted.done()
            await _leave(hang)
            reader.gate.set()
            answer = await counted
            assert isinstance(answer, Answered)
            assert msgspec.json.decode(answer.content)["tokens"] == CODEC.encode("x")
            assert reader.num_begun == 2

    asyncio.run(read())


def _limits(bodies: Begun) -> list[int]:
    """Bytes of addresses that these processes may have."""
    return [resource.prlimit(pid, resource.RLIMIT_AS)[0] for pid in bodies.pids]


def test_what_a_process_prints_and_takes_harms_nobody(
    bodies: Begun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lostwax.server.gateway.body_reader._MODULE", "loud_body_process")
    source = Path(loud_body_process.__file__).parent
    monkeypatch.setenv("PYTHONPATH", str(source), prepend=":")

    async def read() -> None:
        reader = BodyReader(CODEC)
        try:
            for _ in range(2):
                prepared = await reader.read(_body("said"), JOB)
                assert isinstance(prepared, Prepared)
                assert prepared.submits[0].prompt == CODEC.encode("said")
                with pytest.raises(ApiError, match="too much memory; send less") as refused:
                    await reader.read(_body(MUCH), JOB)
                assert (refused.value.status, refused.value.code) == (413, "body_too_costly")
            (limit,) = _limits(bodies)
            assert limit <= MAX_MEMORY_BYTES
        finally:
            await reader.stop()

    asyncio.run(read())
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [SAID, WRITTEN] * 4
