"""Schemas of arguments in DSML, narrowed to what readers of calls read: no string holds a tag of
calls, which would end its parameter.

Some things are left that a schema allows and a reader refuses: a number beyond a double's range or
of thousands of digits, a key of an inner object that stands twice, a parameter that does where
names are free, and a thousand brackets inside one another. The library does not exclude them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from lostwax.server.formats.encoding_v32 import DSML

_BAR, _NEXT = DSML[0], DSML[1]
NO_MARK = f"^([^{_BAR}]|{_BAR}+[^{_BAR}{_NEXT}])*{_BAR}*$"
"""Texts without the beginning of DSML's mark."""
_NAME = "any-json-that-is-read"
ANY: Mapping[str, Any] = {"$ref": f"#/$defs/{_NAME}"}
"""Any value that can be read, in a schema that has its definition."""
_FORMS = {"pattern", "format", "enum", "const"}
_MANY = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")


_DEFINITION: Mapping[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": NO_MARK},
        *({"type": kind} for kind in ("number", "boolean", "null")),
        {"type": "array", "items": ANY},
        {"type": "object", "patternProperties": {NO_MARK: ANY}, "additionalProperties": False},
    ]
}


def readable(schema: Any) -> Any:
    """A schema (any that says nothing is `ANY`) narrowed so; what it says of other forms is left
    as it is, for the library to refuse. It has all definitions that it needs."""
    narrowed = _narrowed(schema)
    if ANY["$ref"] not in str(narrowed):
        return narrowed
    return {**narrowed, "$defs": {**narrowed.get("$defs", {}), _NAME: _DEFINITION}}


def _narrowed(schema: Any) -> Any:
    if schema is True or schema == {}:
        return ANY
    if not isinstance(schema, Mapping):
        return schema
    made = dict(cast("Mapping[str, Any]", schema))
    for key in _MANY:
        if isinstance(inner := made.get(key), Mapping):
            its = cast("Mapping[str, Any]", inner)
            made[key] = {name: _narrowed(each) for name, each in its.items()}
    for key in _LISTS:
        if isinstance(inner := made.get(key), list):
            made[key] = [_narrowed(each) for each in cast("list[Any]", inner)]
    kind = made.get("type")
    if kind == "array":
        made["items"] = _narrowed(made.get("items", True))
    elif kind == "object":
        made["additionalProperties"] = _narrowed(made.get("additionalProperties", True))
    elif kind == "string" and not made.keys() & _FORMS:
        made["pattern"] = NO_MARK
    return made
