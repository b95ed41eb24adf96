"""A hundred grammars that cost much to compile or to follow, of ten kinds. Knows no server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Body = dict[str, Any]
"""What a request says of its format."""


def _nested(size: int) -> Any:
    schema: Any = {"type": "string", "pattern": "(x{1,9}){1,9}"}
    for i in range(size):
        schema = {"anyOf": [{"type": "array", "items": schema}, {"const": i}]}
    return schema


def _cycle(size: int) -> Any:
    """Definitions that are nothing but each other."""
    defs = {f"d{i}": {"$ref": f"#/$defs/d{(i + 1) % size}"} for i in range(size)}
    return {"$ref": "#/$defs/d0", "$defs": defs}


def _patterns(size: int) -> Any:
    every = [{"type": "string", "pattern": f"^(.*{chr(97 + i % 26)}){{{size}}}"} for i in range(6)]
    return {"allOf": every}


def _extreme(size: int) -> Any:
    many = 10 ** (3 + size)
    return {
        "type": "array",
        "items": {"type": "integer", "multipleOf": 9973 * size, "maximum": many},
        "minItems": many,
    }


_KINDS: dict[str, Callable[[int], Body]] = {
    "repeats of repeats": lambda i: {"regex": f"(a{{{150 * i}}}){{{150 * i}}}"},
    "what was long ago": lambda i: {"regex": f"(.|\\n)*a(.|\\n){{{300 * i}}}b"},
    "alternatives": lambda i: {
        "regex": "(" + "|".join("a" * k + ".*" for k in range(20 * i)) + ")+x"
    },
    "nests": lambda i: {"guided_json": _nested(3 * i)},
    "lists of values": lambda i: {"guided_json": {"enum": [f"v{k:05}" for k in range(650 * i)]}},
    "wide objects": lambda i: {
        "guided_json": {"properties": {f"p{k}": {"pattern": f".*{k}"} for k in range(150 * i)}}
    },
    "cycles": lambda i: {"guided_json": _cycle(i)},
    "patterns together": lambda i: {"guided_json": _patterns(4 * i)},
    "ambiguity": lambda i: {
        "ebnf": "root ::= " + "root " * (1 + i) + ' | "a" | root root | [a-z]*\n'
    },
    "extremes": lambda i: {"guided_json": _extreme(i)},
}


def hostile_grammars(each: int = 10) -> list[tuple[str, Body]]:
    """So many of each kind, each larger than the one before."""
    return [(kind, make(i)) for i in range(1, each + 1) for kind, make in _KINDS.items()]
