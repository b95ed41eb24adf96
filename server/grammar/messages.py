"""What an engine and the process that follows a grammar say to one another: msgpack, a frame each.

Masks themselves are not sent: they are written into memory that both map.
"""

from __future__ import annotations

import msgspec

from lostwax.server.grammar.grammar import Grammar
from lostwax.server.told_fault import Fault


class Compile(msgspec.Struct, frozen=True, tag="compile"):
    """The first thing that a process hears: the grammar it is there for."""

    grammar: Grammar


class Open(msgspec.Struct, frozen=True, array_like=True):
    """An answer begins. Any of the `ends` ends it. It follows the grammar from its first token on,
    or from behind the token `after`."""

    ends: tuple[int, ...]
    after: int | None


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Those answers are over."""

    numbers: list[int]


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """`tokens` came since the answer was asked for last; then `drafts` are guessed. Wanted is a
    mask behind the tokens and one behind each draft, in rows of the shared memory from `row` on.
    `opens` stands where nothing was asked of the answer before."""

    number: int
    tokens: list[int]
    drafts: list[int]
    row: int
    opens: Open | None = None


class Masks(msgspec.Struct, frozen=True, tag="masks"):
    """Masks for answers of one step."""

    asks: list[Ask]


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """The grammar can be followed; that takes `num_bytes` of memory so far. It is said again
    when the last answer that followed it is over and none has begun for a while."""

    num_bytes: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot; the process ends."""

    message: str


class Made(msgspec.Struct, frozen=True, tag="made"):
    """The masks are there, but for answers that cannot go on, by number with the reason."""

    faults: dict[int, str] = {}


Request = Compile | Close | Masks
Reply = Compiled | Refused | Made | Fault
"""A process that tells a fault ends."""

MAX_FRAME_BYTES = 256 << 10
"""A grammar of the greatest size is below it, as are MAX_ASKS asks."""
MAX_ASKS = 256
"""In one frame: 64 KiB where each opens an answer of 20 ends, a third of what a socket holds."""
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
