"""Schemas of arguments in DSML, narrowed to what readers of calls read: no string and no key holds
a tag of calls, which would end its parameter.

Some things are left that a schema allows and a reader refuses: a number beyond a double's range or
of thousands of digits, a key of an inner object that stands twice, a parameter that does where
names are free, a thousand brackets inside one another, and a tag in a key that a schema's own
`patternProperties` allows. The library does not exclude them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from lostwax.server.formats.encoding_v32 import DSML
from lostwax.server.grammar.grammar import BadGrammar
from lostwax.server.grammar.tool_schema import ABOUT

_BAR, _NEXT = DSML[0], DSML[1]
NO_MARK = f"^([^{_BAR}]|{_BAR}+[^{_BAR}{_NEXT}])*{_BAR}*$"
"""Texts without the beginning of DSML's mark."""
_NAME = "any-json-that-is-read"
ANY: Mapping[str, Any] = {"$ref": f"#/$defs/{_NAME}"}
"""Any value that can be read, in a schema that has its definition."""
_BY_OTHERS = {"anyOf", "oneOf", "allOf", "$ref", "enum", "const"}
"""What says which values may come without saying their type."""
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
    if schema is True:
        return ANY
    if not isinstance(schema, Mapping):
        return schema
    made = dict(cast("Mapping[str, Any]", schema))
    if not made.keys() - ABOUT:
        return ANY
    if "type" not in made and not made.keys() & _BY_OTHERS:
        return {"allOf": [made, ANY]}
    return _by_type(_inside(made))


def _inside(made: dict[str, Any]) -> dict[str, Any]:
    """With the schemas that it holds narrowed."""
    for key in made.keys() & set(_MANY):
        if not isinstance(made[key], Mapping):
            raise BadGrammar(f"{key!r} is no object; write one, or leave it out")
        made[key] = {name: _narrowed(each) for name, each in made[key].items()}
    for key in made.keys() & {*_LISTS, "enum"}:
        if not isinstance(made[key], list):
            raise BadGrammar(f"{key!r} is no list; write one, or leave it out")
        its = cast("list[Any]", made[key])
        made[key] = _without_marks(its) if key == "enum" else [_narrowed(each) for each in its]
    if "const" in made:
        _without_marks([made["const"]])
    return made


def _by_type(made: dict[str, Any]) -> dict[str, Any]:
    """With what each type that it names leaves open narrowed."""
    kind: Any = made.get("type", ())
    kinds = cast("list[Any]", kind) if isinstance(kind, list) else [kind]
    if "array" in kinds:
        made["items"] = _narrowed(made.get("items", True))
    if "object" in kinds:
        made["additionalProperties"] = _narrowed(made.get("additionalProperties", True))
        made.setdefault("patternProperties", {_BAR + _NEXT: False})
    if "string" in kinds and not made.keys() & {"format", "enum", "const"}:
        if "pattern" in made:
            made["allOf"] = [*made.get("allOf", ()), {"pattern": NO_MARK}]
        else:
            made["pattern"] = NO_MARK
    return made


def _without_marks(values: list[Any]) -> list[Any]:
    left = [each for each in values if _BAR + _NEXT not in json.dumps(each, ensure_ascii=False)]
    if values and not left:
        raise BadGrammar(
            f"each value that may come ('enum', 'const') holds {DSML}, which begins a call; take it"
            " out"
        )
    return left
