"""Asks an OpenAI-compatible server for chat answers, as they are made. Knows no terminal."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from lostwax.evals.bounded_body import MAX_LIST_BYTES, UNCOMPRESSED, BodyTooLong, BoundedBody
from lostwax.evals.event_lines import EventLines, EventTooLong

MAX_ERROR_BYTES = 1 << 16
TIMEOUT = httpx.Timeout(600, connect=10)
"""Between two tokens; a long prompt on a small machine takes minutes to its first."""

Message = dict[str, str]


class ChatError(RuntimeError):
    """The server gave no answer, or not a whole one; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer; `finish` is set on the last."""

    content: str = ""
    reasoning: str = ""
    finish: str | None = None


class _Piece(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Piece = msgspec.field(default_factory=_Piece)
    finish_reason: str | None = None


class _Error(msgspec.Struct):
    message: str = "unknown"


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    error: _Error | str | None = None


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model] = []


class ChatClient:
    """One server. Without `model`, the first that the server lists is asked."""

    def __init__(
        self, url: str, *, model: str | None = None, key: str | None = None, is_ours: bool = False
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1"
        parsed = _url(self.url)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A proxy from the environment is not asked for a server that we run ourselves.
        self._http = httpx.Client(
            base_url=parsed, headers=headers, timeout=TIMEOUT, trust_env=not is_ours
        )
        self._model = model

    def close(self) -> None:
        """Close what connections are open."""
        self._http.close()

    @property
    def model(self) -> str:
        """The model that is asked. Raises ChatError where no server answers."""
        if self._model is None:
            with self._asked("GET", "models") as answer:
                found = _decode(_body(answer, MAX_LIST_BYTES), _Models).data
            if not found:
                raise ChatError(f"{self.url} serves no model")
            self._model = found[0].id
        return self._model

    def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> Generator[Delta, None, None]:
        """The answer to a chat. Closing the generator ends the request. Raises ChatError."""
        body = {"model": self.model, "messages": messages, "stream": True, **options}
        with self._asked("POST", "chat/completions", body) as answer:
            try:
                yield from _deltas(_lines(answer.iter_raw()))
            except httpx.HTTPError as error:
                raise ChatError(f"the answer broke off: {_fault(error)}") from error

    def _asked(self, method: str, path: str, body: object = None) -> _Asked:
        return _Asked(self._http, method, path, body)


class _Asked:
    """A successful answer's head, with its body still to come; closed at the block's end."""

    def __init__(self, http: httpx.Client, method: str, path: str, body: object) -> None:
        self._http = http
        content = None if body is None else msgspec.json.encode(body)
        headers = UNCOMPRESSED | ({} if body is None else {"Content-Type": "application/json"})
        self._request = http.build_request(method, path, content=content, headers=headers)

    def __enter__(self) -> httpx.Response:
        try:
            self._answer = self._http.send(self._request, stream=True)
        except (httpx.HTTPError, UnicodeError) as error:  # a name that no resolver takes
            where = str(self._http.base_url).rstrip("/")
            raise ChatError(f"no server answers at {where}: {_fault(error)}") from error
        if not self._answer.is_success:
            try:
                raise ChatError(_refusal(self._answer))
            finally:
                self._answer.close()
        return self._answer

    def __exit__(self, *_: object) -> None:
        self._answer.close()


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ChatError(f"{text!r} is no URL ({error}); give one like http://HOST:PORT") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ChatError(f"{text!r} is no URL of a server; give one like http://HOST:PORT")
    return url


def _fault(error: Exception) -> str:
    return str(error) or type(error).__name__


def _refusal(answer: httpx.Response) -> str:
    """What the server says is wrong, or else its status."""
    try:
        error = _decode(_body(answer, MAX_ERROR_BYTES), _Event).error
    except ChatError:
        error = None
    said = error.message if isinstance(error, _Error) else error
    return said or f"the server answers {answer.status_code} {answer.reason_phrase}"


def _body(answer: httpx.Response, limit: int) -> bytes:
    body = BoundedBody(limit)
    try:
        for part in answer.iter_raw():
            body.add(part)
    except BodyTooLong as error:
        raise ChatError(f"the server sent too much: {error}") from error
    except httpx.HTTPError as error:
        raise ChatError(f"the answer broke off: {_fault(error)}") from error
    return body.content()


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a stream, each of a bounded length."""
    lines = EventLines()
    for part in parts:
        try:
            whole = lines.add(part)
        except EventTooLong as error:
            raise ChatError(str(error)) from error
        yield from whole


def _deltas(lines: Iterable[bytes]) -> Iterator[Delta]:
    """Server-sent events as pieces of the answer, until `[DONE]`."""
    for line in lines:
        if not line.startswith(b"data:"):
            continue  # an event's name, a comment, an empty line
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        event = _decode(data, _Event)
        if event.error is not None:
            raise ChatError(event.error if isinstance(event.error, str) else event.error.message)
        for choice in event.choices[:1]:
            piece = choice.delta
            reasoning = piece.reasoning_content or piece.reasoning or ""
            yield Delta(piece.content or "", reasoning, choice.finish_reason)
    raise ChatError("the answer broke off: the server closed the connection")


def _decode(data: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ChatError(f"the server sent something else than expected ({error})") from error
