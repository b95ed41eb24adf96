"""A fault that a process tells another, whose log is bounded in rate and of the operator's format.

Knows nothing of what the processes do.
"""

from __future__ import annotations

import traceback

import msgspec

MAX_CHARS = 16_000
"""Of one traceback, the end."""
MAX_PART_CHARS = 2000
"""Of one message or frame in it: a long message must not push out the lines that led to it."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag="fault"):
    """A fault of the server's: an exception, and its traceback."""

    what: str
    trace: str


class ToldFault(RuntimeError):
    """A fault that another process has met; its traceback is a note."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.add_note(fault.trace)


def fault_of(error: BaseException) -> Fault:
    """What is told of an exception."""
    what = _cut(f"{type(error).__name__}: {error}")
    return Fault(what=as_text(what), trace=as_text(trace_of(error)))


def trace_of(error: BaseException) -> str:
    """Its traceback, in at most MAX_CHARS."""
    parts = [_cut(part) for part in traceback.format_exception(error)]
    return "".join(parts).rstrip()[-MAX_CHARS:]


def _cut(part: str) -> str:
    return part if len(part) <= MAX_PART_CHARS else f"{part[:MAX_PART_CHARS]} …\n"


def as_text(told: str) -> str:
    """What a frame can hold of a text: no half character."""
    return told.encode("utf-8", "replace").decode()
