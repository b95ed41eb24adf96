"""Posts requests: waits where a server says so, gives up after a bound. Knows no task.

429 and 503 are overload or start-up: they are tried again, after `Retry-After` where the server
names a time. So is a connection that could not be made; but once all patience was used up on one,
requests try once only, until the server is found again. Everything else is final.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from lostwax.evals.bounded_body import UNCOMPRESSED, BodyTooLong, BoundedBody
from lostwax.evals.task import TaskError

MAX_BODY_BYTES = 64 * 2**20
MAX_WAIT_S = 60.0
MAX_TIMEOUT_S = 86_400
FIRST_WAIT_S = 0.5
_RETRIED = (429, 503)


class RequestFailed(RuntimeError):
    """A request got no answer; the message says what came instead."""


class RequestRefused(RequestFailed):
    """The server answers, but not this request: a parameter or the prompt's length is wrong."""


class _TryAgain(Exception):
    """The server is busy, or not there yet."""

    def __init__(self, fault: str, wait_s: float, *, is_there: bool) -> None:
        super().__init__(fault)
        self.wait_s = wait_s
        self.is_there = is_there


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for one request, and how often to try it again."""

    timeout_s: float = 600.0
    retries: int = 8

    def __post_init__(self) -> None:
        if not (0 < self.timeout_s <= MAX_TIMEOUT_S and 0 <= self.retries <= 100):
            raise TaskError(
                f"the timeout must be above 0 and at most {MAX_TIMEOUT_S} s, retries lie in 0..100"
            )


@dataclass(slots=True)
class Sender:
    """Posts JSON to one server; `sleep` is there to be replaced in tests."""

    http: httpx.AsyncClient
    patience: Patience
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _is_gone: bool = field(default=False, init=False)

    async def post(self, path: str, body: dict[str, Any]) -> tuple[bytes, int]:
        """The body of a 200 answer, and how many tries came before it. Raises RequestFailed."""
        content = msgspec.json.encode(body)
        for tries in range(self.patience.retries + 1):
            wait_s = min(FIRST_WAIT_S * 2**tries, MAX_WAIT_S)
            try:
                answer = await self._try(path, content, wait_s)
            except _TryAgain as again:
                if tries == self.patience.retries or self._is_gone:
                    self._is_gone = not again.is_there
                    times = "once" if tries == 0 else f"{tries + 1} times"
                    raise RequestFailed(f"{again} (tried {times})") from again
                await self.sleep(again.wait_s)
            else:
                return answer, tries
        raise AssertionError("the last try returns or raises")

    async def _try(self, path: str, content: bytes, wait_s: float) -> bytes:
        try:
            async with asyncio.timeout(self.patience.timeout_s):
                status, headers, answer = await self._once(path, content)
                self._is_gone = False
        except TimeoutError as error:
            raise RequestFailed(f"no answer within {self.patience.timeout_s:g} s") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            fault = str(error) or type(error).__name__
            raise _TryAgain(f"cannot connect: {fault}", wait_s, is_there=False) from error
        except BodyTooLong as error:
            raise RequestFailed(str(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RequestFailed(f"{type(error).__name__}: {error}") from error
        if status == 200:
            return answer
        fault = f"status {status}: {error_message(answer)}"
        if status in _RETRIED:
            raise _TryAgain(fault, _retry_after(headers, wait_s), is_there=True)
        raise RequestRefused(fault) if 400 <= status < 500 else RequestFailed(fault)

    async def _once(self, path: str, content: bytes) -> tuple[int, httpx.Headers, bytes]:
        headers = UNCOMPRESSED | {"Content-Type": "application/json"}
        body = BoundedBody(MAX_BODY_BYTES)
        async with self.http.stream("POST", path, content=content, headers=headers) as answer:
            async for part in answer.aiter_raw():
                body.add(part)
        return answer.status_code, answer.headers, body.content()


def _retry_after(headers: httpx.Headers, default_s: float) -> float:
    """Seconds of a `Retry-After`, which may also be a date."""
    given = headers.get("retry-after", "")
    try:
        wait_s = float(given)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except ValueError:
            return default_s
    return min(max(wait_s, 0.0), MAX_WAIT_S) if wait_s == wait_s else default_s


def error_message(body: bytes) -> str:
    """What an error body says: OpenAI's shape, else its beginning."""
    try:
        return str(msgspec.json.decode(body)["error"]["message"])[:300]
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
