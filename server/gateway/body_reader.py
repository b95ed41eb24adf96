"""Reads request bodies so that no other client waits for it. Knows processes and bytes, no request.

Reading holds the interpreter for as long as a C call takes: 50 ms and more for 16 MB of JSON, and
all clients wait for the many calls of many threads. A small body is read in a thread, where each
such call is short. A larger one goes to another process, with a deadline: there it costs the
gateway nothing but its bytes. Those of ordinary chats have a process of their own, for none of them
to wait for large ones. So have chats that an operator's template renders, whatever their size: that
is a program, and a fork of a process without threads bounds it (`template_apart.py`). A body that
may be a text is read as one first, so that no text waits for templates. Threads, processes and what
waits for them are bounded.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from lostwax.ir.contract.own_program import own_program
from lostwax.server.gateway.body_process import LENGTH_BYTES
from lostwax.server.gateway.body_turns import BodyTurns
from lostwax.server.gateway.chat_settings import HAS_CHAT, TEXTS_ALONE
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import read_body
from lostwax.server.gateway.prepared import (
    MIXED_ROUTES,
    Answered,
    Job,
    Prepared,
    Refused,
)
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.told_fault import Fault, ToldFault

SMALL_BODY_BYTES = 8192
"""Up to here in a thread."""
LARGE_BODY_BYTES = 65536
"""Above, two processes; up to here, one."""
NUM_THREADS = 2
NUM_PROCESSES = 2
DEADLINE_S = 10.0
BEGIN_S = 10.0
"""A process is there and begins to read within this, or it is not the body's fault."""
_CHUNK_BYTES = 65536
_MODULE = "lostwax.server.gateway.body_process"
_JOBS = msgspec.msgpack.Encoder()
Read = Prepared | Answered | Refused | Fault
"""What a process says of a body."""
_ANSWERS = msgspec.msgpack.Decoder(Read)


class ReadingFailed(ToldFault):
    """A process met a fault of the server's in a body."""


class BodyReader:
    """Reads bodies in threads and processes. The first process is started by `start`, another when
    it is needed; one that ends, does not begin within `begin_s` or exceeds `deadline_s` is
    replaced."""

    def __init__(
        self, codec: Codec, deadline_s: float = DEADLINE_S, begin_s: float = BEGIN_S
    ) -> None:
        self._codec = codec
        self._deadline_s = deadline_s
        self._begin_s = begin_s
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="body")
        self._large = BodyTurns(NUM_PROCESSES)
        self._medium = BodyTurns(1)
        self._templated = BodyTurns(1)
        self._idle: list[Process] = []
        self._is_stopped = False
        self._tasks: set[asyncio.Task[Read]] = set()
        self._starting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the first process in the background: the first large request need not wait."""
        self._starting = asyncio.create_task(self._start_first())

    async def stop(self) -> None:
        """End all threads and processes, and what they read; what still waits is refused."""
        self._is_stopped = True
        tasks: list[asyncio.Task[Any]] = [*self._tasks]
        if self._starting is not None:
            tasks.append(self._starting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for process in self._idle:
            await _end(process)
        self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, body: bytes, job: Job) -> Prepared | Answered:
        """The request; ApiError where it is refused, ReadingFailed where that is our fault."""
        if job.chats.template is None:
            return await self._read_plain(body, job)
        if job.route in MIXED_ROUTES:
            try:
                return await self._read_plain(body, msgspec.structs.replace(job, chats=TEXTS_ALONE))
            except ApiError as error:
                if error.code != HAS_CHAT:
                    raise
        return await self._read_in_turn(self._templated, body, job)

    async def _read_plain(self, body: bytes, job: Job) -> Prepared | Answered:
        """The request, by whom its size says. There is no template to run."""
        if len(body) <= SMALL_BODY_BYTES:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, read_body, body, job, self._codec)
        turns = self._large if len(body) > LARGE_BODY_BYTES else self._medium
        return await self._read_in_turn(turns, body, job)

    async def _read_in_turn(self, turns: BodyTurns, body: bytes, job: Job) -> Prepared | Answered:
        await turns.take(is_large=len(body) > LARGE_BODY_BYTES)
        if self._is_stopped:  # its turn came as what was read before it was ended
            turns.give_back()
            message = "the server is shutting down and reads no more requests"
            raise ApiError(503, message, code="shutting_down", retry_after_s=1)
        task = asyncio.create_task(self._read_apart(body, job))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, turns))
        # A client that leaves does not end the process, which others would then wait for again.
        answer = await asyncio.shield(task)
        if isinstance(answer, Fault):
            raise ReadingFailed(answer)
        if isinstance(answer, Refused):
            raise ApiError(answer.status, answer.message, code=answer.code, param=answer.param)
        return answer

    async def _read_apart(self, body: bytes, job: Job) -> Read:
        self._idle = [process for process in self._idle if process.returncode is None]
        if self._idle:
            # It may have ended since, which is not the body's fault: then a new one reads it.
            with suppress(_NotBegun):
                return await self._asked(self._idle.pop(), body, job)
        try:
            return await self._asked(None, body, job)
        except _NotBegun as error:
            raise _ended() from error

    async def _asked(self, idle: Process | None, body: bytes, job: Job) -> Read:
        """The answer of an idle process, or of a new one."""
        try:
            async with asyncio.timeout(self._begin_s):
                process = idle or await self._started()
                async with _ended_if_it_fails(process):
                    await _write(process, _JOBS.encode(job))
                    await _write(process, body)
                    await _read(process)
        except TimeoutError as error:
            message = f"reading the body did not begin within {self._begin_s:g} s; try again"
            raise ApiError(503, message, code="reader_unavailable") from error
        except (OSError, EOFError) as error:
            raise _NotBegun from error
        try:
            async with _ended_if_it_fails(process), asyncio.timeout(self._deadline_s):
                answer = _ANSWERS.decode(await _read(process))
        except TimeoutError as error:
            message = f"reading the body took longer than {self._deadline_s:g} s; send less"
            raise ApiError(413, message, code="body_too_costly") from error
        except (OSError, EOFError) as error:
            raise _ended() from error
        self._idle.append(process)
        return answer

    def _done(self, task: asyncio.Task[Read], turns: BodyTurns) -> None:
        self._tasks.discard(task)
        turns.give_back()
        if not task.cancelled():
            task.exception()  # looked at: a client that left does not

    async def _start_first(self) -> None:
        await self._medium.take()
        try:
            # One that does not come in time is not missed: who needs it starts another.
            with suppress(OSError):
                async with asyncio.timeout(self._begin_s):
                    self._idle.append(await self._started())
        finally:
            self._medium.give_back()

    async def _started(self) -> Process:
        """A process that was given the tokenizer, which waits for it to read: to be bounded."""
        # A session of its own: Ctrl-C reaches the gateway alone, at whose end the input ends.
        process = await asyncio.create_subprocess_exec(
            *own_program(_MODULE), stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        async with _ended_if_it_fails(process):
            await _write(process, await asyncio.to_thread(self._codec.serialised))
        return process


class _NotBegun(Exception):
    """A process ended before it began to read."""


def _ended() -> ApiError:
    """Of a body that may have ended its process: no other is given it."""
    message = "the process that read the body ended; send less, or see the server's log"
    return ApiError(500, message, code="internal_error")


@asynccontextmanager
async def _ended_if_it_fails(process: Process) -> AsyncGenerator[None]:
    try:
        yield
    except BaseException:
        await _end(process)
        raise


async def _write(process: Process, frame: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(len(frame).to_bytes(LENGTH_BYTES, "big"))
    view = memoryview(frame)
    for start in range(0, len(frame), _CHUNK_BYTES):
        # In chunks: asyncio copies what the pipe does not take at once.
        process.stdin.write(view[start : start + _CHUNK_BYTES])
        await process.stdin.drain()


async def _read(process: Process) -> bytes:
    assert process.stdout is not None
    size = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
    return await process.stdout.readexactly(size)


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
