"""A value changed in one place, once for each place that it has: what a key must tell apart.

Knows no key. A field that is added to a structure is changed without anybody naming it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import msgspec


def altered(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Each place, in words, and the value with another content there."""
    match value:
        case bool():
            yield where, not value
        case int() | float():
            yield where, value + 1
        case str():
            yield where, f"{value}~"
        case bytes():
            yield where, value + b"~"
        case None:
            yield where, "~"
        case list():
            yield from ((place, [*other]) for place, other in _of_tuple((*value,), where))
        case tuple():
            yield from _of_tuple(value, where)
        case dict():
            yield from _of_dict(value, where)
        case _:
            yield from _of_fields(value, where)


def _of_tuple(value: tuple[Any, ...], where: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield f"{where} one more", (*value, *value[-1:]) if value else ("~",)
    if value[::-1] != value:
        yield f"{where} turned around", value[::-1]
    for i, part in enumerate(value):
        for place, other in altered(part, f"{where}[{i}]"):
            yield place, (*value[:i], other, *value[i + 1 :])


def _of_dict(value: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield f"{where} one more", value | {"~": "~"}
    for key, part in value.items():
        yield f"{where} without {key}", {k: v for k, v in value.items() if k != key}
        for place, other in altered(part, f"{where}[{key!r}]"):
            yield place, value | {key: other}


def _of_fields(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Of a structure of msgspec's or a dataclass; what cannot be has no key."""
    is_struct = isinstance(value, msgspec.Struct)
    changed: Any = msgspec.structs.replace if is_struct else replace
    assert is_struct or is_dataclass(value), f"{where}: a {type(value).__name__} has no places"
    for field in msgspec.structs.fields(value) if is_struct else fields(value):
        for place, other in altered(getattr(value, field.name), f"{where}.{field.name}"):
            with suppress(ValueError):
                yield place, changed(value, **{field.name: other})
