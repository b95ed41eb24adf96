"""Runs one HTTP request through the engine and gathers its answer. Knows no HTTP and no text.

What a request and its answer look like is a Form's: there is one for each interface.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import msgspec

from lostwax.server.engine.messages import GRAMMAR_FAILED, INVALID_GRAMMAR, TIMED_OUT, Output
from lostwax.server.gateway.engine_client import (
    TOO_SLOW,
    EngineClient,
    EngineLost,
    RequestFailed,
)
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepared import Prepared
from lostwax.server.gateway.readiness import lost
from lostwax.server.gateway.request_record import RequestRecord
from lostwax.server.gateway.stream import Framing

STATUSES = {
    "context_length_exceeded": 400,
    INVALID_GRAMMAR: 400,
    GRAMMAR_FAILED: 500,
    "too_many_grammars": 429,
    "invalid_value": 400,
    "unsupported_value": 400,
    TIMED_OUT: 504,
    TOO_SLOW: 408,
}
"""Of a request that ended with these codes: its message is for the client."""


class Summable(Protocol):
    """What one output adds to a choice; a whole answer is the sum."""

    @property
    def finish(self) -> str | None:
        """Why the choice ends here, None where it goes on."""
        ...

    def extend(self, other: Self, /) -> None:
        """Append what follows."""
        ...


D = TypeVar("D", bound=Summable)
T = TypeVar("T")
D_co = TypeVar("D_co", bound=Summable, covariant=True)
D_contra = TypeVar("D_contra", bound=Summable, contravariant=True)


class Reader(Protocol[D_co]):
    """Reads the engine's outputs of one choice."""

    @property
    def finished(self) -> bool:
        """Whether nothing can follow."""
        ...

    @property
    def num_output(self) -> int:
        """Tokens generated so far."""
        ...

    def opening(self) -> Iterator[D_co]:
        """What comes before the first output, in parts that are quickly made."""
        ...

    def feed(self, output: Output) -> D_co:
        """What an output adds."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer says of itself from the start; `created` is seconds since 1970."""

    id: str
    created: int
    model: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens so far: of all prompts, each counted once, those of them that were cached, and of all
    choices together."""

    num_prompt: int
    num_cached: int
    num_output: int


class Wire(Protocol[D_contra]):
    """The JSON of one answer."""

    @property
    def framing(self) -> Framing:
        """How its events are sent."""
        ...

    def whole(self, wholes: Mapping[int, D_contra]) -> Any:
        """The whole answer, of the choices by their index; JSON is made of it elsewhere."""
        ...

    def events(self, index: int, delta: D_contra) -> Iterable[bytes]:
        """What a client is sent of what an output adds to a choice; nothing where it is no news."""
        ...

    def last(self) -> Iterable[bytes]:
        """What comes behind the last output."""
        ...


class Form(Protocol[D]):
    """How a kind of request is answered."""

    @property
    def id_prefix(self) -> str:
        """What an answer's id starts with."""
        ...

    @property
    def readers(self) -> Sequence[Reader[D]]:
        """One a choice."""
        ...

    def wire(self, head: Head, usage: Callable[[], Usage]) -> Wire[D]:
        """How an answer is written, which asks `usage` for the tokens so far."""
        ...


class Generation(Generic[D]):
    """One HTTP request on its way through the engine, which is asked once a prompt. `record` is
    filled where somebody observes. It has `timeout_s` seconds to end."""

    def __init__(
        self,
        prepared: Prepared,
        form: Form[D],
        client: EngineClient,
        model: str,
        request_id: str,
        record: RequestRecord | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._request_id = request_id
        self._num_prompt = sum(len(submit.prompt) for submit in prepared.submits)
        self._num_choices = prepared.options.num_choices
        self._submits = [
            msgspec.structs.replace(
                each, log_id=request_id, timeout_s=timeout_s, num_choices=self._num_choices
            )
            for each in prepared.submits
        ]
        self._format_param = prepared.options.format_param
        self._form = form
        self._client = client
        self._record = record
        name = f"{form.id_prefix}{uuid.uuid4().hex}"
        self._wire = form.wire(Head(name, int(time.time()), model), self._usage)
        self._num_cached: dict[int, int] = {}
        """Tokens of each prompt that the engine found in its cache for the first of its choices."""
        if record is not None:
            record.generates = True
            record.num_prompt = self._num_prompt

    async def answer(self) -> bytes:
        """The JSON of the whole answer."""
        wholes: dict[int, D] = {}

        def add(index: int, delta: D) -> Iterable[None]:
            if index in wholes:
                wholes[index].extend(delta)
            else:
                wholes[index] = delta
            return ()

        async with aclosing(self._each(add)) as nothing:
            async for _ in nothing:
                pass
        # Log-probabilities of a long answer are millions of values: the loop goes on meanwhile.
        return await asyncio.to_thread(self._encoded, wholes)

    def _encoded(self, wholes: dict[int, D]) -> bytes:
        return msgspec.json.encode(self._wire.whole(dict(sorted(wholes.items()))))

    @property
    def framing(self) -> Framing:
        """How the parts of the answer are sent."""
        return self._wire.framing

    def chunks(self) -> AsyncGenerator[bytes | None]:
        """The answer in parts, as they come: events, but for what `framing` puts around each. None
        where a grammar of it is followed from now on: no status can say any more what fails."""
        return self._each(self._wire.events, self._wire.last)

    async def _each(
        self,
        shape: Callable[[int, D], Iterable[T]],
        last: Callable[[], Iterable[T]] = tuple[()],
    ) -> AsyncGenerator[T | None]:
        """What `shape` makes of what the engine's outputs add to choices, then `last`; None for
        those that add nothing."""
        names = (name for submit in self._submits for name in submit.names)
        indices = {name: i for i, name in enumerate(names)}
        opened: set[int] = set()
        with self._failures_told():
            async with aclosing(self._client.stream(self._submits)) as outputs:
                async for output in outputs:
                    if output.is_followed:
                        yield None
                        continue
                    index = indices[output.request]
                    if index not in opened:
                        opened.add(index)
                        self._note_cached(index, output.cached_tokens)
                        for delta in self._form.readers[index].opening():
                            for part in shape(index, delta):
                                yield part
                            await asyncio.sleep(0)  # for others
                    delta = self._read(index, output)
                    if delta is not None:
                        for part in shape(index, delta):
                            yield part
            for part in last():
                yield part

    def _read(self, index: int, output: Output) -> D | None:
        """What an output adds to a choice; None where that is over."""
        reader = self._form.readers[index]
        if reader.finished:
            return None
        num_before = reader.num_output
        delta = reader.feed(output)
        if self._record is not None:
            self._note(self._record, index, reader.num_output - num_before, delta)
        if reader.finished and output.finish is None:
            self._client.cancel(output.request)
        return delta

    @contextmanager
    def _failures_told(self) -> Generator[None]:
        try:
            yield
        except EngineLost as error:
            raise lost(self._client, error) from error
        except RequestFailed as error:
            raise self._told(error) from error

    def _told(self, error: RequestFailed) -> ApiError:
        """What the client hears of a request that failed."""
        if error.code in STATUSES:
            is_of_format = error.code in (INVALID_GRAMMAR, GRAMMAR_FAILED)
            param = self._format_param if is_of_format else None
            message = str(error) if param is None else f"{param!r}: {error}"
            return ApiError(STATUSES[error.code], message, code=error.code, param=param)
        message = f"the engine failed on request {self._request_id}; the server's log says why"
        return ApiError(500, message, code=error.code)

    def _note_cached(self, index: int, num_tokens: int) -> None:
        if index % self._num_choices == 0:
            self._num_cached[index] = num_tokens
            if self._record is not None:
                prompt = self._submits[index // self._num_choices].prompt
                self._record.note_prompt(len(prompt), num_tokens)

    def _note(self, record: RequestRecord, index: int, num_tokens: int, delta: D) -> None:
        if num_tokens:
            record.note_tokens(index, num_tokens)
        if delta.finish is not None:
            record.note_finish(delta.finish)

    def _usage(self) -> Usage:
        num_output = sum(reader.num_output for reader in self._form.readers)
        return Usage(self._num_prompt, sum(self._num_cached.values()), num_output)
