"""Asks one question and times its answer as it streams in. Knows OpenAI's two shapes, no load.

Tokens are counted by the server's usage, which the request asks for: how a server cuts its stream
into chunks says nothing of tokens. Times are of chunks that bring text, or the end of the answer:
the chunk with the role comes before any token.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import httpx
import msgspec

from lostwax.evals.bounded_body import UNCOMPRESSED, BodyTooLong, BoundedBody
from lostwax.evals.event_lines import EventLines, EventTooLong
from lostwax.evals.load.prompts import Prompt
from lostwax.evals.send import error_message

MAX_ERROR_BYTES = 1 << 16
MAX_SAID_CHARS = 300
"""Of what a server says of a failure: each such sentence is kept and counted."""
MAX_TOKENS = 2**40
"""That a usage may say: more is none, and no float."""
PATHS = {"completions": "/completions", "chat": "/chat/completions"}


class AskFailed(RuntimeError):
    """A request got no whole answer; the message says what came instead."""


class Unreachable(AskFailed):
    """No connection could be made."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One answer. Seconds are counted from the moment the request was sent."""

    first_s: float
    last_s: float
    gaps_s: array[float]
    """Between two chunks with text."""
    prompt_tokens: int
    output_tokens: int

    @property
    def token_s(self) -> float | None:
        """Between two tokens behind the first, on average; None where there is but one."""
        if self.output_tokens < 2:
            return None
        return (self.last_s - self.first_s) / (self.output_tokens - 1)


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one model of one server, through a client whose base URL ends in /v1.

    `clock` tells seconds, and is there to be replaced in tests.
    """

    http: httpx.AsyncClient
    model: str
    endpoint: Literal["completions", "chat"]
    timeout_s: float
    temperature: float = 0.0
    ignore_eos: bool = False
    clock: Callable[[], float] = time.perf_counter

    async def ask(self, prompt: Prompt) -> Timing:
        """The times of a prompt's answer. Raises AskFailed."""
        content = self._body(prompt)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._ask(content, prompt.max_tokens)
        except TimeoutError as error:
            raise AskFailed(f"no whole answer within {self.timeout_s:g} s") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"cannot connect: {_fault(error)}") from error
        except httpx.HTTPError as error:
            raise AskFailed(f"the answer broke off: {_fault(error)}") from error
        except (EventTooLong, BodyTooLong) as error:
            raise AskFailed(str(error)) from error

    def _body(self, prompt: Prompt) -> bytes:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": prompt.max_tokens,
            "temperature": self.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.ignore_eos:  # no field of OpenAI's: sent only where it is asked for
            body["ignore_eos"] = True
        if self.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": prompt.content}]
        else:
            body["prompt"] = prompt.content
        return msgspec.json.encode(body)

    async def _ask(self, content: bytes, max_tokens: int) -> Timing:
        headers = UNCOMPRESSED | {"Content-Type": "application/json"}
        answer = _Answer(self.clock())
        path = PATHS[self.endpoint]
        async with self.http.stream("POST", path, content=content, headers=headers) as response:
            if response.status_code != 200:
                raise AskFailed(await _refusal(response))
            lines = EventLines()
            async for part in response.aiter_raw():
                at_s = self.clock()
                for data in _data(lines.add(part)):
                    if data == b"[DONE]":
                        return answer.timing(max_tokens)
                    answer.take(data, at_s)
        raise AskFailed("the answer broke off: the server closed the connection before [DONE]")


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None

    @property
    def is_piece(self) -> bool:
        """Whether a token came with it, as far as can be seen."""
        found = self.delta
        return bool(
            self.text
            or self.finish_reason
            or (found and (found.content or found.reasoning_content or found.reasoning))
        )


class _Usage(msgspec.Struct):
    prompt_tokens: Annotated[int, msgspec.Meta(le=MAX_TOKENS)]
    completion_tokens: Annotated[int, msgspec.Meta(le=MAX_TOKENS)]


class _Error(msgspec.Struct):
    message: str = "unknown"


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | str | None = None


class _Answer:
    """What has come of an answer."""

    def __init__(self, sent_s: float) -> None:
        self._sent_s = sent_s
        self._first_s: float | None = None
        self._last_s = 0.0
        self._gaps_s: array[float] = array("d")
        self._usage: _Usage | None = None

    def take(self, data: bytes, at_s: float) -> None:
        """An event that came at that time. Raises AskFailed where it is an error or none."""
        try:
            event = msgspec.json.decode(data, type=_Event)
        except (msgspec.DecodeError, RecursionError) as error:
            raise AskFailed(f"the server sent something else than expected ({error})") from error
        if event.error is not None:
            said = event.error if isinstance(event.error, str) else event.error.message
            raise AskFailed(f"the answer broke off: {said[:MAX_SAID_CHARS]}")
        self._usage = event.usage or self._usage
        if not any(choice.is_piece for choice in event.choices):
            return
        if self._first_s is None:
            self._first_s = at_s
        else:
            self._gaps_s.append(at_s - self._last_s)
        self._last_s = at_s

    def timing(self, max_tokens: int) -> Timing:
        """The whole answer. Raises AskFailed where the server's usage cannot be."""
        usage = self._usage
        if usage is None:
            raise AskFailed(
                "the stream brought no usage, so its tokens cannot be counted; the server must"
                " take stream_options.include_usage"
            )
        if not (usage.prompt_tokens >= 1 and 1 <= usage.completion_tokens <= max_tokens):
            raise AskFailed(
                f"the server's usage cannot be: {usage.prompt_tokens} tokens of prompt and"
                f" {usage.completion_tokens} of an answer of at most {max_tokens}"
            )
        if self._first_s is None:
            raise AskFailed(
                f"the stream brought no answer, and its usage says {usage.completion_tokens} tokens"
            )
        return Timing(
            first_s=self._first_s - self._sent_s,
            last_s=self._last_s - self._sent_s,
            gaps_s=self._gaps_s,
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
        )


def _data(lines: list[bytes]) -> Iterator[bytes]:
    """What events hold; their names, comments and empty lines are passed over."""
    for line in lines:
        if line.startswith(b"data:"):
            yield line[5:].strip()


async def _refusal(response: httpx.Response) -> str:
    body = BoundedBody(MAX_ERROR_BYTES)
    async for part in response.aiter_raw():
        body.add(part)
    return f"status {response.status_code}: {error_message(body.content())}"


def _fault(error: Exception) -> str:
    return str(error) or type(error).__name__
