"""Clients that stream completions and read as they please: at once, slowly, half, or not at all.

They speak HTTP by themselves: what a client is slow in, no library hides. Knows no engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Manner = Literal["at once", "slowly", "half"]
"""How an answer is read; `half` leaves when half of it is there."""
SMALL_WINDOW_BYTES = 4096
"""Of a client that reads slowly: what it leaves lies on the server's side."""
SLOW_READ_BYTES, SLOW_READ_S = 8192, 0.1


NICENESS = 10
T = TypeVar("T")


def run_beside(clients: Coroutine[Any, Any, T]) -> T:
    """Run clients in a thread that gives way to a server on the same machine: theirs is another."""

    def run() -> T:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        return asyncio.run(clients)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


@dataclass(frozen=True, slots=True)
class Question:
    """A request and the ids that it must be answered with."""

    body: dict[str, Any]
    want: list[int]


@dataclass(slots=True)
class Tally:
    """What clients saw."""

    finished: int = 0
    left: int = 0
    wrong: list[str] = field(default_factory=list[str])


async def ask(port: int, question: Question, manner: Manner, tally: Tally) -> None:
    """Stream one answer and compare its ids, those of half an answer, too."""
    connection = socket.socket()
    if manner == "slowly":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW_BYTES)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=SMALL_WINDOW_BYTES)
    try:
        writer.write(_head(question.body | {"stream": True, "return_token_ids": True}))
        most = len(question.want) // 2 if manner == "half" else None
        ids, end = await _read(reader, manner, most)
    except (ConnectionError, asyncio.IncompleteReadError, ValueError, KeyError) as error:
        tally.wrong.append(f"{manner}: {type(error).__name__}: {error}")
        return
    finally:
        writer.transport.abort()
    if end is None:
        tally.left += 1
        is_right = ids == question.want[: len(ids)]
    else:
        tally.finished += 1
        is_right = ids == question.want
    if not is_right:
        tally.wrong.append(f"{manner}, {end}: {question.body} gave {ids}, not {question.want}")


def _head(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def _read(
    reader: asyncio.StreamReader, manner: Manner, most: int | None
) -> tuple[list[int], str | None]:
    """The ids, and how the answer ended; None where the client has had enough before."""
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(head.decode())
    ids, rest, end = list[int](), b"", None
    while True:
        if manner == "slowly":
            await asyncio.sleep(SLOW_READ_S * random.random())
        part = await reader.read(SLOW_READ_BYTES)
        if not part:
            raise ConnectionError("the answer was cut")
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line == b"data: [DONE]":
                return ids, end
            if line.startswith(b"event: error"):
                raise ValueError(f"an error event: {rest}")
            if line.startswith(b"data: "):
                (choice,) = json.loads(line[6:])["choices"]
                ids += choice["token_ids"]
                end = choice["finish_reason"] or end
        if most is not None and len(ids) >= most:
            return ids, None


async def hold_half_open(port: int, seconds: float) -> None:
    """Open connections that are no good, again and again: without a word, with half a head, with
    half a body, and with an answer that nobody reads. What the server does is its own."""
    body = {"prompt": [1, 2, 3], "max_tokens": 400, "ignore_eos": True, "echo": True}
    whole = _head(body | {"stream": True, "return_token_ids": True})
    sent = (b"", whole[:40], whole[:-9], whole)
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        writers: list[asyncio.StreamWriter] = []
        for what in sent:
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW_BYTES)
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", port))
            _, writer = await asyncio.open_connection(sock=connection, limit=1)
            writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
            writer.write(what)
            writers.append(writer)
        writers[-2].transport.set_write_buffer_limits(0)
        await asyncio.sleep(min(20.0, max(until - loop.time(), 0)))
        for writer in writers:
            writer.transport.abort()
