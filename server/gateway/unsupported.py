"""Parameters that the server does not honour: the values that ask for nothing, and what to do
instead. Knows no particular parameter.

A parameter's JSON is kept as it came and read only where it is short enough to be a value that asks
for nothing, so that what is refused costs nothing, however large it is.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

Unread = Raw | UnsetType
"""A parameter's JSON; unset where the client did not send it."""
MAX_NEUTRAL_BYTES = 64


class FieldError(ValueError):
    """A request is wrong at one of its fields, although each has a value of the right type."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def only(*neutral: Any, remedy: str) -> Meta:
    """Marks a parameter of which only the values that ask for nothing are taken; null is one."""
    # As JSON: Python takes two annotations for one where they differ in 0 and false only.
    written = tuple(msgspec.json.encode(value).decode() for value in neutral)
    return Meta(
        extra_json_schema={"enum": [*neutral, None]}, extra={"neutral": written, "remedy": remedy}
    )


def only_as_many_as(other: str, most: int, *, remedy: str) -> Meta:
    """Marks a number, `most` at most, that asks for nothing where it is 1, or what the request's
    attribute `other` is."""
    schema = {"type": ["integer", "null"], "minimum": 1, "maximum": most}
    extra = {"neutral": ("1",), "remedy": remedy, "other": other}
    return Meta(extra_json_schema=schema, extra=extra)


def require_neutral(request: msgspec.Struct) -> None:
    """FieldError at the first parameter that asks for what is not honoured."""
    for name, neutral, remedy, other in _marked(type(request)):
        if other is not None:
            also = msgspec.json.encode(getattr(request, other)).decode()
            neutral = tuple(dict.fromkeys((*neutral, also)))
        if not _is_neutral(getattr(request, name), neutral):
            said = f"only {' or '.join(neutral)} is supported" if neutral else "it is not supported"
            raise FieldError(name, f"{said}; {remedy}")


def given(raw: Unread) -> bytes | None:
    """A parameter's JSON, None where the client sent nothing or null."""
    if raw is UNSET:
        return None
    text = bytes(raw)
    return None if text == b"null" else text


def _is_neutral(raw: Unread, neutral: tuple[str, ...]) -> bool:
    text = given(raw)
    if text is None or len(text) > MAX_NEUTRAL_BYTES:
        return text is None
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return False
    # JSON's true is no 1, as Python has it.
    return any(
        value == each and isinstance(value, bool) == isinstance(each, bool)
        for each in map(msgspec.json.decode, neutral)
    )


@cache
def _marked(kind: type[msgspec.Struct]) -> list[tuple[str, tuple[str, ...], str, str | None]]:
    marked: list[tuple[str, tuple[str, ...], str, str | None]] = []
    for field in msgspec.structs.fields(kind):
        found = msgspec.inspect.type_info(field.type)
        extra: dict[str, Any] | None = getattr(found, "extra", None)
        if extra and "neutral" in extra:
            mark = (extra["neutral"], extra["remedy"], extra.get("other"))
            marked.append((field.encode_name, *mark))
    return marked
