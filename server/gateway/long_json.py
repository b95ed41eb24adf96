"""Encodes JSON of any length without holding the interpreter for long. Knows no answer.

One call of msgspec's holds it for as long as it takes: seconds for the log-probabilities of a long
answer. This makes many short calls, between which other threads run.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

SLICE_ITEMS = 512


def encode_long(value: Any) -> bytes:
    """The JSON of a value."""
    return b"".join(_parts(value))


def _parts(value: Any) -> list[bytes]:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)  # JSON's objects have text as keys
        return _listed(
            b"{}", [[msgspec.json.encode(k), b":", *_parts(v)] for k, v in fields.items()]
        )
    if isinstance(value, list):
        items = cast("list[Any]", value)
        if len(items) > SLICE_ITEMS:
            starts = range(0, len(items), SLICE_ITEMS)
            slices = (msgspec.json.encode(items[at : at + SLICE_ITEMS]) for at in starts)
            return _listed(b"[]", [[encoded[1:-1]] for encoded in slices])
        if any(isinstance(item, dict) for item in items):
            return _listed(b"[]", [_parts(item) for item in items])
    return [msgspec.json.encode(value)]


def _listed(brackets: bytes, items: list[list[bytes]]) -> list[bytes]:
    listed = [brackets[:1]]
    for index, item in enumerate(items):
        listed += [b",", *item] if index else item
    return [*listed, brackets[1:]]
