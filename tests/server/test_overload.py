"""Bounds hold: bodies, headers, the queue; and a client that leaves takes nothing with it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from fake_runtime import FakeRuntime, generate
from http_server import running
from scripted_runtime import CODEC, ScriptedRuntime
from starlette.types import Message, Receive, Scope, Send
from step_oracle import StepBatch

from lostwax.ir.contract.step import StepResult
from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.admission import Admission
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.body_limit import MAX_BODY_BYTES, BodyLimit
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.prepare import prepare
from lostwax.server.gateway.prepared import Job, Prepared
from lostwax.server.gateway.tokenizer import IdCodec

BODY = {"prompt": [1, 2], "max_tokens": 40, "temperature": 0, "ignore_eos": True}

JSON = {"Content-Type": "application/json"}


class GatedRuntime(FakeRuntime):
    """Steps wait at a gate once it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def run(self, batch: StepBatch) -> StepResult:
        assert self.gate.wait(20)
        return super().run(batch)


class Server:
    """A served gated runtime."""

    def __init__(self, runtime: GatedRuntime, core: EngineCore, client: httpx.Client) -> None:
        self.gate = runtime.gate
        self.core = core
        self.client = client

    def idle(self) -> bool:
        pages = self.core.scheduler.pages
        return not self.core.has_work and pages.num_free == pages.num_usable


@contextmanager
def _served(settings: Settings) -> Generator[Server]:
    runtime = GatedRuntime()
    core = EngineCore(runtime)
    app = create_app(InProcessEngine(core), IdCodec(), settings)
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        assert client.get("/ready").status_code == 200
        try:
            yield Server(runtime, core, client)
        finally:
            runtime.gate.set()


def test_a_full_queue_is_429_and_later_free_again() -> None:
    with _served(Settings(max_admitted_reqs=2)) as server:
        server.gate.clear()
        body = BODY | {"stream": True, "prompt": [[1], [2]]}
        with server.client.stream("POST", "/v1/completions", json=body) as running_one:
            refused = server.client.post("/v1/completions", json=BODY)
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "queue_full"
            assert int(refused.headers["retry-after"]) > 0
            server.gate.set()
            assert running_one.read().endswith(b"data: [DONE]\n\n")
        assert server.client.post("/v1/completions", json=BODY).status_code == 200
        never = server.client.post("/v1/completions", json=BODY | {"prompt": [[1]] * 3})
        assert never.status_code == 400


def test_the_queue_is_bounded_by_tokens_too() -> None:
    admission = Admission(max_reqs=10, max_tokens=100)
    ticket = admission.admit(1, 90)
    with pytest.raises(ApiError) as refused:
        admission.admit(1, 11)
    assert refused.value.status == 429
    ticket.release()
    ticket.release()
    admission.admit(1, 500).release()
    assert (admission.num_reqs, admission.num_tokens) == (0, 0)


@pytest.mark.parametrize(("asked", "answer"), [({}, 0), ({"max_tokens": 7}, 7)])
@pytest.mark.parametrize("n", [1, 3])
def test_the_queue_counts_the_prompt_once_and_of_answers_what_was_asked_for(
    asked: dict[str, int], answer: int, n: int
) -> None:
    info = EngineCore(ScriptedRuntime()).info
    job = Job(route="chat", model="fake", info=info, max_tokens=10**6)
    chat = {"messages": [{"role": "user", "content": "Hi?"}], "n": n}
    prepared = prepare(json.dumps(chat | asked).encode(), job, CODEC)
    assert isinstance(prepared, Prepared)
    (submit,) = prepared.submits
    assert prepared.num_tokens == len(submit.prompt) + n * answer


def test_a_ticket_is_corrected_when_the_request_was_read() -> None:
    admission = Admission(max_reqs=3, max_tokens=100)
    first, second = admission.admit(1, 1), admission.admit(1, 1)
    first.change(2, 90)
    assert (admission.num_reqs, admission.num_tokens) == (3, 91)
    for num_reqs, num_tokens in ((2, 1), (1, 11)):
        with pytest.raises(ApiError) as refused:
            second.change(num_reqs, num_tokens)
        assert refused.value.status == 429
    first.release()
    second.release()
    assert (admission.num_reqs, admission.num_tokens) == (0, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"prompt": [61]}',
        b'{"prompt": [1], "stop": "x"}',
        json.dumps({"prompt": [1] * 70}).encode(),
        json.dumps(BODY).encode(),
        json.dumps(BODY | {"stream": True}).encode(),
    ],
)
def test_every_end_of_a_request_gives_its_place_back(body: bytes) -> None:
    with _served(Settings(max_admitted_reqs=1)) as server:
        for _ in range(3):
            answer = server.client.post("/v1/completions", content=body, headers=JSON)
            assert answer.status_code in (200, 400), answer.text


def test_a_full_queue_reads_no_request() -> None:
    with _served(Settings(max_admitted_reqs=1)) as server:
        server.gate.clear()
        with server.client.stream("POST", "/v1/completions", json=BODY | {"stream": True}):
            more = server.client.post("/v1/completions", content=b"{", headers=JSON)
            assert more.status_code == 429
            server.gate.set()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_pages(stream: bool) -> None:
    with _served(Settings()) as server:
        server.gate.clear()
        address = (server.client.base_url.host, server.client.base_url.port or 0)
        content = json.dumps(BODY | {"stream": stream}).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        with socket.create_connection(address) as connection:
            connection.sendall(head.encode() + content)
            if stream:
                assert connection.recv(12) == b"HTTP/1.1 200"
            else:
                _until(lambda: server.core.has_work)
        _until(lambda: server.client.get("/health").status_code == 200)
        server.gate.set()
        _until(server.idle)
        answer = server.client.post("/v1/completions", json=BODY | {"return_token_ids": True})
        assert answer.json()["choices"][0]["token_ids"] == generate([1, 2], 40)


def test_a_body_above_the_cap_is_413() -> None:
    with _served(Settings()) as server:
        declared = server.client.post(
            "/v1/completions", content=b" " * (16 * 2**20 + 1), headers=JSON
        )
        assert declared.status_code == 413
        assert declared.json()["error"]["code"] == "body_too_large"


def test_headers_are_bounded() -> None:
    with _served(Settings()) as server:
        address = (server.client.base_url.host, server.client.base_url.port or 0)
        with socket.create_connection(address) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000)
            assert connection.recv(12) == b"HTTP/1.1 400"


def _until(condition: object) -> None:
    """Waits for what another thread brings about, by the test's own time limit."""
    assert callable(condition)
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen within 10 s")


A, B = "192.0.2.1", "2001:db8::1"


async def _call(limit: BodyLimit, messages: list[Message], host: str = "127.0.0.1") -> int:
    status: list[int] = []

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    scope: Scope = {"type": "http", "headers": [], "client": (host, 1)}
    await limit(scope, receive, send)
    return status[0]


async def _accept(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


@pytest.mark.parametrize(
    ("chunks", "status"),
    [([b"aa", b"bb"], 200), ([b"aaa", b"bb"], 413), ([b"a", None], 408)],
)
def test_undeclared_bodies_are_bounded_in_size_and_time(
    chunks: list[bytes | None], status: int
) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": i + 1 < len(chunks)}
        for i, chunk in enumerate(chunks)
        if chunk is not None
    ]
    limit = BodyLimit(_accept, max_bytes=4, deadline_s=0.05)
    assert asyncio.run(_call(limit, messages)) == status


def test_the_bodies_of_all_requests_together_are_bounded_while_they_are_answered() -> None:
    async def answered_beside_a_waiting_one() -> list[int]:
        waits, is_answered = asyncio.Event(), asyncio.Event()

        async def accept(scope: Scope, receive: Receive, send: Send) -> None:
            if not waits.is_set():
                waits.set()
                await is_answered.wait()
            await _accept(scope, receive, send)

        limit = BodyLimit(accept, max_bytes=4, max_total_bytes=5, free_bytes=0)

        def body() -> list[Message]:
            return [{"type": "http.request", "body": b"aaa", "more_body": False}]

        first = asyncio.create_task(_call(limit, body()))
        await waits.wait()
        second = await _call(limit, body())
        is_answered.set()
        return [second, await first, await _call(limit, body())]

    assert asyncio.run(answered_beside_a_waiting_one()) == [429, 200, 200]


def test_small_bodies_are_taken_beside_any_number_of_large_ones() -> None:
    async def answered() -> list[int]:
        limit = BodyLimit(_accept, max_total_bytes=5, free_bytes=3)

        def body(size: int) -> list[Message]:
            return [{"type": "http.request", "body": b"a" * size, "more_body": False}]

        return [await _call(limit, body(size)) for size in (6, 3, 5)]

    assert asyncio.run(answered()) == [429, 200, 200]


def test_of_the_address_that_holds_most_the_body_that_held_most_for_longest_gives_way() -> None:
    async def told() -> tuple[list[int], list[int | None]]:
        limit = BodyLimit(_accept, max_bytes=8, max_total_bytes=20, free_bytes=0)

        def body(size: int, more: bool) -> list[Message]:
            return [{"type": "http.request", "body": b"a" * size, "more_body": more}]

        stalled: list[asyncio.Task[int]] = []
        for host, size in ((A, 8), (B, 6), (B, 3), (B, 3)):
            stalled.append(asyncio.create_task(_call(limit, body(size, True), host)))
            await asyncio.sleep(0.01)  # so that they differ in age
        answered: list[int] = []
        for size in (1, 8):
            answered.append(await _call(limit, body(size, False), B))
        await asyncio.wait(stalled[1:3], timeout=5)
        ends = [task.result() if task.done() else None for task in stalled]
        for task in stalled:
            task.cancel()
        return answered, ends

    assert asyncio.run(told()) == ([200, 200], [None, 429, 429, None])


@pytest.mark.hostile
def test_stalled_bodies_give_way_to_those_that_come() -> None:
    head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    stalled = f"{head}Content-Length: {MAX_BODY_BYTES}\r\n\r\n".encode()
    with _served(Settings()) as server, ExitStack() as stack:
        url = server.client.base_url
        for _ in range(16):
            connection = stack.enter_context(socket.create_connection((url.host, url.port or 0)))
            connection.sendall(stalled + bytes(MAX_BODY_BYTES - 10))
        for size in (40, 2**20, 8 * 2**20):
            body = json.dumps(BODY).encode().ljust(size)
            answer = server.client.post("/v1/completions", content=body, headers=JSON)
            assert answer.status_code == 200, answer.text
