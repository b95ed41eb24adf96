"""Clients that connect and say little take no room from those that ask something."""

from __future__ import annotations

import json
import resource
import select
import socket
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
from fake_runtime import FakeRuntime
from gateway_process import gateway_process
from http_server import running

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.connection import UNREAD_WAITS_S
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.room import (
    RESERVED_FILES,
    SPARE,
    Room,
    TooFewFiles,
    max_connections,
)
from lostwax.server.gateway.tokenizer import IdCodec

HALF = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-"
GET = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LARGE = GET.replace(b"/health", b"/openapi.json")
OK = b"HTTP/1.1 200 OK"
BODY = {"prompt": [1, 2], "max_tokens": 4, "ignore_eos": True}


@contextmanager
def _served(
    max_connections: int = 100,
    head_deadline_s: float = 30.0,
    unread_deadline_s: float = 30.0,
    unread_waits_s: float = UNREAD_WAITS_S,
    step_s: float = 0.0,
) -> Generator[str]:
    core = EngineCore(FakeRuntime(step_s=step_s))
    app = create_app(InProcessEngine(core), IdCodec(), Settings())
    with running(app, max_connections, head_deadline_s, unread_deadline_s, unread_waits_s) as url:
        yield url


def _open(stack: ExitStack, url: str, count: int, first: bytes = b"") -> list[socket.socket]:
    """Connections of which each sends something and then nothing."""
    address = (httpx.URL(url).host, httpx.URL(url).port or 0)
    opened: list[socket.socket] = []
    for _ in range(count):
        opened.append(stack.enter_context(socket.create_connection(address, 20)))
        opened[-1].sendall(first)
    return opened


def _read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def _num_closed(connections: Sequence[socket.socket]) -> int:
    closed = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            closed += connection.recv(1) == b""
        except BlockingIOError:
            pass
        except ConnectionResetError:
            closed += 1
    return closed


def test_half_a_head_is_told_and_closed_in_time_however_it_trickles() -> None:
    with _served(head_deadline_s=0.3) as url, ExitStack() as stack:
        silent, half, later, trickle = (_open(stack, url, 1, b)[0] for b in (b"", HALF, GET, b"G"))
        answered = b""
        while not answered.endswith(b"}"):
            answered += later.recv(65536)
        later.sendall(HALF)  # on a connection that was used before
        begun = time.monotonic()
        with suppress(ConnectionError):  # the end that is waited for
            while time.monotonic() - begun < 10:
                trickle.sendall(b"E")
                time.sleep(0.02)
        for connection in (silent, half, later):
            answer = _read_all(connection)
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
        assert time.monotonic() - begun < 5


def test_a_client_that_reads_nothing_is_closed_and_one_that_reads_slowly_is_not() -> None:
    with _served(unread_deadline_s=0.5) as url, ExitStack() as stack:
        count = 8 * 2**20 // len(httpx.get(f"{url}/openapi.json").content)
        # More than the system's buffers take, asked for at once.
        silent, slow = _open(stack, url, 2, LARGE * count)
        found, num_bytes, window, ended = 0, 0, b"", select.poll()
        ended.register(silent, select.POLLHUP | select.POLLERR)
        begun = time.monotonic()
        while found < count:
            part = slow.recv(65536)
            assert part
            window = window[1 - len(OK) :] + part
            found += window.count(OK)
            num_bytes += len(part)
            time.sleep(max(begun + num_bytes / 6e6 - time.monotonic(), 0))
        assert ended.poll(20_000)


CHUNKED = (
    b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
NO_HTTP = {
    "TLS": b"\x16\x03\x01\x02\r\n\r\n",
    "a chunk": CHUNKED + b"zz\r\n",
    "a header": b"GET / HTTP/1.1\r\nX\r\n\r\n",
    "no end": b"GET /" + b"A" * 70_000,
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_what_is_no_http_is_an_error_of_the_apis_shape(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with _served() as url, ExitStack() as stack:
        (connection,) = _open(stack, url, 1, NO_HTTP[name])
        head, _, body = _read_all(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["error"]["code"] == "invalid_http"
        assert httpx.get(f"{url}/health").json()["running"] == 0
    assert capfd.readouterr().err == ""


def _in_chunks(body: bytes, size: int, extension: bytes = b"") -> bytes:
    parts = (body[i : i + size] for i in range(0, len(body), size))
    return b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)


TRAILER = b"X:" + b" " * 60_000 + b"\0\r\n\r\n"
COSTLY = {
    "a byte each": CHUNKED + _in_chunks(b" " * 300_000, 1),
    "a byte each of a body that was refused": (
        CHUNKED.replace(b"/json", b"/x") + _in_chunks(b" " * 300_000, 1)
    ),
    "an extension each": CHUNKED + _in_chunks(b" " * 64_000, 1_000, b";" + b"a" * 2_000),
    "a padded trailer": CHUNKED + b"1\r\n \r\n0\r\n" + TRAILER,
}


@pytest.mark.parametrize("name", COSTLY)
def test_chunks_that_cost_more_than_their_bytes_are_refused_and_stop_nobody(name: str) -> None:
    with _served() as url, ExitStack() as stack, httpx.Client(base_url=url) as other:
        other.get("/health")
        (connection,) = _open(stack, url, 1)
        sender = threading.Thread(target=_send_all, args=(connection, COSTLY[name]))
        sender.start()
        waits: list[float] = []
        for _ in range(20):
            begun = time.monotonic()
            other.get("/health")
            waits.append(time.monotonic() - begun)
        answer = b""
        with suppress(ConnectionResetError):  # its other bytes were not read
            answer = connection.recv(12)
        sender.join()
        assert answer in (b"", b"HTTP/1.1 400", b"HTTP/1.1 415")
        assert max(waits) < 0.4  # 10 ms of parsing beside whatever else runs; it was 1 s and more
        assert httpx.get(f"{url}/health").json()["running"] == 0


def _send_all(connection: socket.socket, content: bytes) -> None:
    with suppress(ConnectionError):  # the server may have ended it
        connection.sendall(content)


@pytest.mark.parametrize("size", [4_096, 100])
def test_ordinary_chunks_are_taken_whatever_they_hold(size: int) -> None:
    padded = json.dumps(BODY)[:-1] + ', "seed":' + " " * 1_000 + "\r\n0\r\n" + " " * 2_000 + "}"
    padded += " " * (16 * 2**20 - len(padded) if size > 1_000 else 0)
    with _served() as url, ExitStack() as stack:
        ending = b"0\r\nX-Note: a\r\n\r\n"
        content = CHUNKED + _in_chunks(padded.encode(), size) + ending + GET
        (connection,) = _open(stack, url, 1, content)
        answer = b""
        while answer.count(OK) < 2:
            part = connection.recv(65536)
            assert part, answer
            answer += part


@pytest.mark.parametrize("first", [b"", HALF, HALF + b"Length: 9\r\n\r\n{", GET], ids=range(4))
def test_connections_that_wait_for_their_client_make_room(first: bytes) -> None:
    with _served(max_connections=8) as url, ExitStack() as stack:
        idle = _open(stack, url, 40, first)
        assert httpx.post(f"{url}/v1/completions", json=BODY, timeout=10).status_code == 200
        assert _num_closed(idle) >= 40 - 8 - SPARE


def test_answers_that_nobody_reads_make_room() -> None:
    with _served(max_connections=2, unread_waits_s=0.1) as url, ExitStack() as stack:
        count = 8 * 2**20 // len(httpx.get(f"{url}/openapi.json").content)
        held = _open(stack, url, 2, LARGE * count)
        begun = time.monotonic()
        while True:
            status = httpx.get(f"{url}/health").status_code
            if status == 200 and _num_ended(held):
                break
            assert time.monotonic() - begun < 10


def _num_ended(connections: Sequence[socket.socket]) -> int:
    """How many the server has aborted, with whatever is unread there."""
    ended = select.poll()
    for connection in connections:
        ended.register(connection, select.POLLHUP | select.POLLERR)
    return len(ended.poll(0))


def test_requests_under_way_are_not_closed_for_new_ones_which_are_told() -> None:
    with _served(max_connections=2, step_s=0.05) as url, ExitStack() as stack:
        asked = [
            stack.enter_context(
                httpx.stream(
                    "POST", f"{url}/v1/completions", json=BODY | {"max_tokens": 20, "stream": True}
                )
            )
            for _ in range(2)
        ]
        refused = httpx.get(f"{url}/health")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "too_many_connections"
        assert refused.headers["connection"] == "close"
        for answer in asked:
            assert answer.read().endswith(b"data: [DONE]\n\n")
        assert httpx.get(f"{url}/health").status_code == 200


class _Connection:
    def __init__(self, address: str) -> None:
        self.address = address
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


def test_the_address_with_most_waiting_connections_gives_up_its_longest_waiting() -> None:
    room, few, many = Room(4), _Connection("a"), [_Connection("b") for _ in range(6)]
    room.enter(few)
    for connection in many:
        assert room.enter(connection)
    assert [c.is_aborted for c in many] == [True, True, True, False, False, False]
    assert not few.is_aborted


def test_room_follows_the_limit_on_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (128, 128))  # pyright: ignore[reportUnknownLambdaType]
    assert max_connections() == 128 - RESERVED_FILES
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(TooFewFiles, match="ulimit -n"):
        max_connections()


def test_130_idle_connections_do_not_lock_out_a_server_of_128_files() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    with gateway_process(before=limit) as gateway, ExitStack() as stack:
        _open(stack, gateway.url, 130)
        begun = time.monotonic()
        answer = httpx.post(f"{gateway.url}/v1/completions", json=BODY, timeout=20)
        assert answer.status_code == 200
        assert time.monotonic() - begun < 5
        gateway.process.terminate()
        assert gateway.end()[1][-1] == "stopped\n"  # and nothing of files that could not be opened


@pytest.mark.hostile
def test_half_heads_and_a_thousand_idle_connections_do_not_lock_out_a_client() -> None:
    with gateway_process() as gateway, ExitStack() as stack:
        _open(stack, gateway.url, 64, HALF)
        _open(stack, gateway.url, 1000)
        _open(stack, gateway.url, 1000, GET)
        waits: list[float] = []
        for _ in range(50):
            begun = time.monotonic()
            answer = httpx.post(f"{gateway.url}/v1/completions", json=BODY, timeout=20)
            waits.append(time.monotonic() - begun)
            assert answer.status_code == 200
        assert sorted(waits)[25] < 0.5
        # without an end to new ones, from one address
        flooding = threading.Event()

        def flood() -> None:
            with ExitStack() as mine:
                while not flooding.is_set():
                    _open(mine, gateway.url, 100, HALF)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for _ in range(20):
                answer = httpx.post(f"{gateway.url}/v1/completions", json=BODY, timeout=20)
                assert answer.status_code == 200
        finally:
            flooding.set()
            thread.join()
