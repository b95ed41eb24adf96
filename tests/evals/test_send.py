"""Requests wait where a server says so, and give up with a sentence."""

from __future__ import annotations

import asyncio
import email.utils
import re
import time
from collections.abc import Callable

import httpx
import pytest

from lostwax.evals.send import MAX_WAIT_S, Patience, RequestFailed, Sender
from lostwax.evals.task import TaskError

Handler = Callable[[int], httpx.Response]


def unread(made: httpx.Response) -> httpx.Response:
    """As it comes from a network, which a made one does not."""
    stream = httpx.ByteStream(made.content)
    return httpx.Response(made.status_code, headers=made.headers, stream=stream)


def post(handler: Handler, patience: Patience | None = None) -> tuple[bytes | str, list[float]]:
    """The body or the fault of one request to a server that counts tries, and the waits."""
    waits: list[float] = []
    tries = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        return unread(handler(tries))

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def run() -> bytes | str:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://x/v1") as http:
            try:
                body, retries = await Sender(http, patience or Patience(), sleep).post("/y", {})
            except RequestFailed as error:
                return str(error)
            assert retries == len(waits) == tries - 1
            return body

    return asyncio.run(run()), waits


def busy_until(try_: int, status: int = 429, retry_after: str | None = None) -> Handler:
    headers = {} if retry_after is None else {"Retry-After": retry_after}

    def handler(tries: int) -> httpx.Response:
        if tries < try_:
            return httpx.Response(status, headers=headers, json={"error": {"message": "full"}})
        return httpx.Response(200, content=b"done")

    return handler


def test_overload_is_waited_for_as_long_as_the_server_says() -> None:
    assert post(busy_until(3, retry_after="7")) == (b"done", [7.0, 7.0])
    assert post(busy_until(2, 503, "2.5")) == (b"done", [2.5])


def test_a_date_is_a_wait_too() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    body, (wait_s,) = post(busy_until(2, retry_after=date))
    assert body == b"done"
    assert 25 < wait_s <= 30


@pytest.mark.parametrize("given", [None, "soon", "nan", "99999", "-5", "inf"])
def test_no_usable_time_means_growing_waits_and_none_is_unbounded(given: str | None) -> None:
    body, waits = post(busy_until(4, retry_after=given))
    assert body == b"done"
    assert all(0 <= wait <= MAX_WAIT_S for wait in waits)
    if given in (None, "soon", "nan"):
        assert waits == [0.5, 1.0, 2.0]


def test_it_gives_up_with_what_the_server_said() -> None:
    fault, waits = post(busy_until(99), Patience(retries=2))
    assert fault == "status 429: full (tried 3 times)"
    assert len(waits) == 2


def test_a_refusal_is_final() -> None:
    fault, waits = post(busy_until(2, 400))
    assert (fault, waits) == ("status 400: full", [])
    assert post(lambda _: httpx.Response(500, content=b"\xff" * 900))[0] == (
        "status 500: " + "\ufffd" * 200
    )


def test_a_connection_that_is_refused_is_tried_again_and_a_broken_one_not() -> None:
    for error in (httpx.ConnectError("refused"), httpx.ConnectTimeout("")):

        def refused(tries: int, error: Exception = error) -> httpx.Response:
            if tries == 1:
                raise error
            return httpx.Response(200, content=b"done")

        assert post(refused) == (b"done", [0.5])

    def broken(_: int) -> httpx.Response:
        raise httpx.ReadError("reset")

    assert post(broken) == ("ReadError: reset", [])


def test_a_server_that_is_gone_is_waited_for_once_and_found_again() -> None:
    is_up, waits = False, list[float]()

    def answer(_: httpx.Request) -> httpx.Response:
        if not is_up:
            raise httpx.ConnectError("refused")
        return unread(httpx.Response(503))

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def run() -> None:
        nonlocal is_up
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://x/v1") as http:
            sender = Sender(http, Patience(retries=2), sleep)
            for up, fault in (
                (False, "cannot connect: refused (tried 3 times)"),
                (False, "cannot connect: refused (tried once)"),
                (True, "status 503:  (tried 3 times)"),
                (False, "cannot connect: refused (tried 3 times)"),
            ):
                is_up = up
                with pytest.raises(RequestFailed, match=f"^{re.escape(fault)}$"):
                    await sender.post("/y", {})

    asyncio.run(run())
    assert len(waits) == 6


def test_a_request_ends_at_its_timeout() -> None:
    async def run() -> None:
        async def never(_: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

        transport = httpx.MockTransport(never)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            await Sender(http, Patience(timeout_s=0.05)).post("/y", {})

    with pytest.raises(RequestFailed, match=r"no answer within 0.05 s"):
        asyncio.run(run())


def test_an_endless_body_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lostwax.evals.send.MAX_BODY_BYTES", 100)
    assert post(lambda _: httpx.Response(200, content=b"x" * 101))[0] == (
        "the answer has more than 100 bytes"
    )


@pytest.mark.parametrize("given", [(0.0, 1), (1.0, -1), (1.0, 101), (float("nan"), 1)])
def test_patience_has_bounds(given: tuple[float, int]) -> None:
    with pytest.raises(TaskError, match="timeout must be above 0"):
        Patience(*given)
