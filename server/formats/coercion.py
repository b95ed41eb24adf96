"""Reads an argument's text by the type that a tool's schema gives it. Knows no stream.

The other dialect of DSML, for clients that rely on their schemas: the model says of every
parameter whether it is a string, and is sometimes wrong. A text that does not fit its type stays
what the model called it, so that nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lostwax.server.formats.strict_json import read_json

_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}
"""What stands for JSON's words, in any case: models write Python's, too."""


@dataclass(frozen=True, slots=True)
class Types:
    """The names of JSON Schema's types that a value may have; none where the schema says none."""

    names: frozenset[str]

    @property
    def takes_any_string(self) -> bool:
        """Whether no text has to be read as something else."""
        return not self.names or "string" in self.names


def types_of(schema: Mapping[str, Any], key: str) -> Types:
    """Of one property in the schema of a tool's parameters; unreadable schemas say nothing."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return Types(frozenset())
    return Types(frozenset(_names(cast("Mapping[str, Any]", properties).get(key))))


def _names(schema: Any) -> Iterator[str]:
    """One level of alternatives is looked into."""
    if not isinstance(schema, Mapping):
        return
    said = cast("Mapping[str, Any]", schema)
    alternatives: list[Any] = [said]
    for word in ("anyOf", "oneOf"):
        if isinstance(said.get(word), Sequence):
            alternatives += said[word]
    for each in alternatives:
        named: Any = cast("Mapping[str, Any]", each).get("type") if isinstance(each, Mapping) else 0
        names = cast("list[Any]", named if isinstance(named, list) else [named])
        yield from (name for name in names if isinstance(name, str))


def coerced(text: str, types: Types, is_string: bool) -> str:
    """The JSON of an argument; `is_string` is what the model said of it."""
    as_string = json.dumps(text, ensure_ascii=False)
    for written in (text, _WORDS.get(text.strip().lower(), "")):
        try:
            value = read_json(written)
        except ValueError:
            continue
        if _fits(value, types) or not (is_string or types.names):
            return written.strip()
    if is_string or "string" in types.names:
        return as_string
    try:
        read_json(text)
    except ValueError:
        return as_string
    return text.strip()


def _fits(value: Any, types: Types) -> bool:
    """JSON Schema's reading: 1.0 is an integer, true is no number."""
    names = types.names
    if isinstance(value, bool):
        return "boolean" in names
    if isinstance(value, int | float):
        return "number" in names or ("integer" in names and value == int(value))
    kinds = {str: "string", list: "array", dict: "object", type(None): "null"}
    return kinds[type(value)] in names
