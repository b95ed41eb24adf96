"""What an engine and the process that follows a grammar say to one another: msgpack, a frame each.

Masks themselves are not sent: they are written into memory that both map.
"""

from __future__ import annotations

import msgspec

from lostwax.server.grammar.grammar import Grammar


class Compile(msgspec.Struct, frozen=True, tag="compile"):
    """The first thing that a process hears: the grammar it is there for."""

    grammar: Grammar


class Open(msgspec.Struct, frozen=True, tag="open"):
    """An answer begins, called `number`. Any of the `ends` ends it. It follows the grammar from
    its first token on, or from behind the token `after`."""

    number: int
    ends: tuple[int, ...]
    after: int | None


class Close(msgspec.Struct, frozen=True, tag="close"):
    """That answer is over."""

    number: int


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """`tokens` came since the answer was asked for last; then `drafts` are guessed. Wanted is a
    mask behind the tokens and one behind each draft, in rows of the shared memory from `row` on."""

    number: int
    tokens: list[int]
    drafts: list[int]
    row: int


class Masks(msgspec.Struct, frozen=True, tag="masks"):
    """Masks for answers of one step."""

    asks: list[Ask]


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """The grammar can be followed; that takes `num_bytes` of memory so far."""

    num_bytes: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot; the process ends."""

    message: str


class Made(msgspec.Struct, frozen=True, tag="made"):
    """The masks are there, but for answers that cannot go on, by number with the reason."""

    faults: dict[int, str] = {}


Request = Compile | Open | Close | Masks
Reply = Compiled | Refused | Made

MAX_FRAME_BYTES = 256 << 10
"""A grammar of the greatest size is below it, as are a step's asks."""
_ENCODE = msgspec.msgpack.Encoder().encode
_REQUESTS = msgspec.msgpack.Decoder(Request)
_REPLIES = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    """One frame."""
    return _ENCODE(message)


def decode_request(frame: bytes) -> Request:
    """What an engine sent; raises msgspec.DecodeError on anything else."""
    return _REQUESTS.decode(frame)


def decode_reply(frame: bytes) -> Reply:
    """What a process answered; raises msgspec.DecodeError on anything else."""
    return _REPLIES.decode(frame)
