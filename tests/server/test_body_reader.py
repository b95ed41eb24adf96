"""Large bodies are read elsewhere, with the same result, and whatever happens there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from body_processes import Begun, body_processes
from scripted_runtime import CODEC as SMALL_CODEC
from scripted_runtime import EOS_ID, VOCAB
from tokenizers import Tokenizer

from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.body_reader import (
    LARGE_BODY_BYTES,
    NUM_PROCESSES,
    SMALL_BODY_BYTES,
    BodyReader,
)
from lostwax.server.gateway.body_turns import MAX_WAITING
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import prepare
from lostwax.server.gateway.prepared import Answered, Job, Prepared
from lostwax.server.gateway.tokenizer import Codec, TextCodec


class _LargeCodec(TextCodec):
    """Has more bytes than a pipe takes unread, as a checkpoint's has."""

    def serialised(self) -> bytes:
        """The `tokenizer.json`, with blanks behind it."""
        return super().serialised().ljust(2**20)


CODEC = _LargeCodec(Tokenizer.from_str(SMALL_CODEC.serialised().decode()))
INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=4096,
    max_reqs=1,
    max_top_logprobs=20,
    eos_token_ids=(EOS_ID,),
    chat_encoding=CHAT_V32,
)
COMPLETION = Job(route="completions", model="fake", info=INFO, max_tokens=4096)
CHAT = msgspec.structs.replace(COMPLETION, route="chat")
FILLED = " " * LARGE_BODY_BYTES
MEDIUM = b'{"prompt": [5]}'.ljust(SMALL_BODY_BYTES + 1)
PROMPT = ('{"prompt": [1, 2, 3], "stop": "x", "seed": 1, "echo": true' + FILLED + "}").encode()
MESSAGES = (
    '{"messages": [{"role": "user", "content": "é"}], "seed": 1, "stream": true'
    ', "chat_template_kwargs": {"thinking": true}' + FILLED + "}"
).encode()


@asynccontextmanager
async def _reader(
    deadline_s: float = 20.0, begin_s: float = 20.0, codec: Codec = CODEC
) -> AsyncGenerator[BodyReader]:
    reader = BodyReader(codec, deadline_s, begin_s)
    try:
        yield reader
    finally:
        await reader.stop()


def _run_instead(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have bodies read by a program of this source."""
    (folder / "other_body_process.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr("lostwax.server.gateway.body_reader._MODULE", "other_body_process")


def _prompt(prepared: Prepared | Answered) -> list[int]:
    assert isinstance(prepared, Prepared)
    return prepared.submits[0].prompt


def _nameless(prepared: Prepared | Answered) -> Prepared:
    assert isinstance(prepared, Prepared)
    submits = [msgspec.structs.replace(each, request="") for each in prepared.submits]
    return msgspec.structs.replace(prepared, submits=submits)


def test_a_process_reads_as_a_thread_does(bodies: Begun) -> None:
    async def read() -> None:
        async with _reader() as reader:
            for body, job in ((PROMPT, COMPLETION), (MESSAGES, CHAT)):
                there, here = await reader.read(body, job), prepare(body, job, CODEC)
                assert _nameless(there) == _nameless(here)
            bad = PROMPT.replace(b'"x"', b"[7]")
            with pytest.raises(ApiError) as refused:
                await reader.read(bad, COMPLETION)
            assert (refused.value.status, refused.value.param) == (400, "stop[0]")
        assert bodies.pids == []

    asyncio.run(read())


def test_a_process_that_another_module_left_is_none_of_this_ones() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "body_process"]
    ) as left:
        try:
            while left.pid not in body_processes():
                time.sleep(0.01)
            assert Begun().pids == []
        finally:
            left.kill()


def test_a_process_that_is_killed_is_replaced(bodies: Begun) -> None:
    async def read() -> None:
        async with _reader() as reader:
            await reader.read(PROMPT, COMPLETION)
            (pid,) = bodies.pids
            os.kill(pid, signal.SIGKILL)
            while bodies.pids == [pid]:
                await asyncio.sleep(0.01)
            assert _prompt(await reader.read(PROMPT, COMPLETION)) == [1, 2, 3]

    asyncio.run(read())


def test_a_body_that_ends_each_process_is_refused(
    bodies: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lostwax.server.gateway.body_reader._MODULE", "lostwax.no_such_module")

    async def read() -> None:
        async with _reader() as reader:
            for _ in range(2):
                with pytest.raises(ApiError, match="ended; send less") as refused:
                    await reader.read(PROMPT, COMPLETION)
                assert refused.value.status == 500
        assert bodies.pids == []

    asyncio.run(read())


SLOW = """
import time
from lostwax.server.gateway import body_process
body_process.read_body = lambda *_: time.sleep(60)
body_process.run()
"""


def test_what_takes_too_long_is_ended(
    bodies: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_instead(SLOW, tmp_path, monkeypatch)

    async def read() -> None:
        async with _reader(deadline_s=0.0) as reader:
            with pytest.raises(ApiError, match="longer than 0 s") as refused:
                await reader.read(PROMPT, COMPLETION)
            assert (refused.value.status, refused.value.code) == (413, "body_too_costly")
            assert bodies.pids == []

    asyncio.run(read())


def test_a_process_that_does_not_begin_is_ended_and_not_the_bodys_fault(bodies: Begun) -> None:
    async def read() -> None:
        async with _reader(begin_s=0.0) as reader:
            for _ in range(2):
                with pytest.raises(ApiError, match="did not begin within 0 s") as refused:
                    await reader.read(PROMPT, COMPLETION)
                assert (refused.value.status, refused.value.code) == (503, "reader_unavailable")
                assert refused.value.headers["Retry-After"]
                assert bodies.pids == []

    asyncio.run(read())


@pytest.mark.parametrize("codec", [SMALL_CODEC, CODEC], ids=["small", "large"])
def test_a_process_that_never_reads_is_ended_and_holds_no_turn(
    bodies: Begun, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_instead("import time\ntime.sleep(60)\n", tmp_path, monkeypatch)

    async def read() -> None:
        async with _reader(begin_s=0.1, codec=codec) as reader:
            reader.start()
            await asyncio.sleep(0)
            # It was started for none of them, for one that waited for that, and for a large one.
            for body in (MEDIUM, MEDIUM, *[PROMPT] * (NUM_PROCESSES + 1)):
                with pytest.raises(ApiError, match=r"did not begin within 0\.1 s") as refused:
                    await asyncio.wait_for(reader.read(body, COMPLETION), 5)
                assert (refused.value.status, refused.value.code) == (503, "reader_unavailable")
            assert bodies.pids == []

    asyncio.run(read())


def test_ordinary_chats_are_read_in_a_process_and_wait_for_no_large_body(bodies: Begun) -> None:
    async def read() -> None:
        async with _reader() as reader:
            await asyncio.gather(*(reader.read(PROMPT, COMPLETION) for _ in range(NUM_PROCESSES)))
            stopped = bodies.pids
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            large = [asyncio.create_task(reader.read(PROMPT, COMPLETION)) for _ in stopped]
            await asyncio.sleep(0)
            # more than large ones may wait
            reads = (reader.read(MEDIUM, COMPLETION) for _ in range(MAX_WAITING + 8))
            for prepared in await asyncio.wait_for(asyncio.gather(*reads), 15):
                assert _prompt(prepared) == [5]
            assert len(bodies.pids) == len(stopped) + 1
            for task in large:
                assert not task.done()
                task.cancel()

    asyncio.run(read())


def test_few_bodies_wait_and_one_whose_client_left_ends_no_process(bodies: Begun) -> None:
    async def read() -> None:
        async with _reader() as reader:
            reads = [asyncio.create_task(reader.read(PROMPT, COMPLETION)) for _ in range(40)]
            await asyncio.sleep(0)
            for left in (0, 9):  # one that is read, and one that waits
                reads[left].cancel()
            answers = await asyncio.gather(*reads, return_exceptions=True)
            refused = [each for each in answers if isinstance(each, ApiError)]
            assert len(refused) == 40 - MAX_WAITING - NUM_PROCESSES
            assert {each.status for each in refused} == {429}
            taken = [each for each in answers if isinstance(each, Prepared)]
            assert len(taken) == MAX_WAITING + NUM_PROCESSES - 2
            assert len(bodies.pids) <= NUM_PROCESSES
            small = json.dumps({"prompt": [5]}).encode()
            assert _prompt(await reader.read(small, COMPLETION)) == [5]

    asyncio.run(read())


def test_what_waits_as_the_reader_stops_starts_no_process(bodies: Begun) -> None:
    async def read() -> None:
        async with _reader() as reader:
            num_reads = NUM_PROCESSES + 3
            reads = [asyncio.create_task(reader.read(PROMPT, COMPLETION)) for _ in range(num_reads)]
            while len(bodies.pids) < NUM_PROCESSES:
                await asyncio.sleep(0.001)
        ended = await asyncio.gather(*reads, return_exceptions=True)
        refused = [each for each in ended if isinstance(each, ApiError)]
        assert [each.status for each in refused] == [503] * (num_reads - NUM_PROCESSES)
        assert bodies.pids == []

    asyncio.run(read())
