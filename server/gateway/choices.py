"""Answers as lists of choices, in OpenAI's shape. Knows neither completions nor chats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from lostwax.server.gateway.generation import Head, Summable, Usage
from lostwax.server.gateway.stream import UNNAMED, Framing

D = TypeVar("D", bound=Summable)
D_contra = TypeVar("D_contra", bound=Summable, contravariant=True)


class Choices(Protocol[D_contra]):
    """What a kind of choice looks like."""

    @property
    def kinds(self) -> tuple[str, str]:
        """`object` of a whole answer and of a streamed part."""
        ...

    def whole(self, index: int, answer: D_contra) -> dict[str, Any]:
        """A choice."""
        ...

    def parts(self, index: int, delta: D_contra) -> list[dict[str, Any]]:
        """A choice's streamed parts; none where a delta is no news for the client."""
        ...

    def usage_details(self) -> dict[str, Any]:
        """What `usage` says beside the sums."""
        ...


class ChoicesWire(Generic[D]):
    """The JSON of choices and their usage, which a stream has last if `streams_usage`."""

    framing: Framing = UNNAMED

    def __init__(
        self, choices: Choices[D], head: Head, usage: Callable[[], Usage], *, streams_usage: bool
    ) -> None:
        self._choices = choices
        self._usage = usage
        self._streams_usage = streams_usage
        self._head = {"id": head.id, "created": head.created, "model": head.model}
        # What all parts share is encoded once: nothing of a token's costs more than it must.
        part = msgspec.json.encode(self._head | {"object": choices.kinds[1]})
        self._part_head = part.removesuffix(b"}") + b',"choices":['
        self._part_tail = b'],"usage":null}' if streams_usage else b"]}"
        self._encode = msgspec.json.Encoder().encode

    def whole(self, wholes: Mapping[int, D]) -> Any:
        """All choices."""
        choices = [self._choices.whole(index, whole) for index, whole in wholes.items()]
        kind = {"object": self._choices.kinds[0]}
        return self._head | kind | {"choices": choices, "usage": self._sums()}

    def events(self, index: int, delta: D) -> list[bytes]:
        """Chunks of one choice each."""
        encode, head, tail = self._encode, self._part_head, self._part_tail
        parts = self._choices.parts(index, delta)
        return [b"%b%b%b" % (head, encode(part), tail) for part in parts]

    def last(self) -> Iterable[bytes]:
        """The usage, if it was asked for."""
        if not self._streams_usage:
            return ()
        return (b'%b],"usage":%b}' % (self._part_head, self._encode(self._sums())),)

    def _sums(self) -> dict[str, Any]:
        usage = self._usage()
        sums = {
            "prompt_tokens": usage.num_prompt,
            "completion_tokens": usage.num_output,
            "total_tokens": usage.num_prompt + usage.num_output,
            "prompt_tokens_details": {"cached_tokens": usage.num_cached},
        }
        return sums | self._choices.usage_details()
