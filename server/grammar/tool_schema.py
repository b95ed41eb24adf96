"""The schema of a tool's arguments as grammars of DSML take it: the form of the keywords that are
looked at, what has no place among parameters, and the definitions that a parameter reaches.

Knows no grammar. Each function takes time in the size of what it is given, not in its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import unquote

from lostwax.server.formats.encoding_v32 import is_name
from lostwax.server.grammar.grammar import BadGrammar

Schema = Mapping[str, Any]
DEFINITIONS = ("$defs", "definitions")
ABOUT = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema",
    "$id", "$comment",
}  # fmt: skip
"""What says nothing of a value."""
_OF_ARGUMENTS = {
    "type", "properties", "required", "additionalProperties", *ABOUT, *DEFINITIONS,
}  # fmt: skip
"""What a strict tool's schema may say: DSML has a parameter an argument, and no place for more."""


def require_form(schema: Schema, whose: str = "its parameters") -> None:
    """BadGrammar where a keyword that is looked at is none of JSON Schema."""
    for key in ("properties", *DEFINITIONS):
        if not isinstance(schema.get(key, {}), Mapping):
            raise BadGrammar(f"{key!r} of {whose} is no object; write one, or leave it out")
    required: Any = schema.get("required", [])
    if not isinstance(required, list) or not all(
        isinstance(name, str) for name in cast("list[Any]", required)
    ):
        raise BadGrammar(f"'required' of {whose} is no list of names; write one")
    for name, its in schema.get("properties", {}).items():
        if isinstance(its, Mapping) and not isinstance(cast("Schema", its).get("enum", []), list):
            raise BadGrammar(f"'enum' of {name!r} is no list; write one")


def further(schema: Schema) -> Any:
    """The schema of parameters beside `properties`; False where there are none.

    A schema that lists properties, or says nothing, has no others unless it says so: a model is to
    write what is described. One that says no more than that it is an object has any.
    """
    is_any = schema.get("type") == "object" and "properties" not in schema
    return schema.get("additionalProperties", is_any)


def why_not(schema: Schema) -> str:
    """Why parameters cannot be written as a schema of this form says, empty where they can."""
    if strange := sorted(schema.keys() - _OF_ARGUMENTS):
        return f"its parameters' schema says {strange[0]!r}; say that in the properties"
    if schema.get("type", "object") != "object":
        return 'its parameters are no object; write "type": "object"'
    if not isinstance(further(schema), (bool, Mapping)):
        return "'additionalProperties' of its parameters is no schema; write one"
    properties = schema.get("properties", {})
    if missing := sorted(set(schema.get("required", ())) - properties.keys()):
        return f"{missing[0]!r} is required and no property; describe it"
    for name, its in properties.items():
        if not is_name(name):
            return f"parameter {name!r} cannot be written so; rename it"
        if its is not True and not isinstance(its, Mapping):
            return f"parameter {name!r} has no schema; write one"
    return _no_definition(schema)


def _no_definition(schema: Schema) -> str:
    """What refers to no definition, empty where all do."""
    own = {("parameter", name): its for name, its in schema.get("properties", {}).items()}
    own |= {
        ("definition", name): its
        for key in DEFINITIONS
        for name, its in schema.get(key, {}).items()
    }
    for (kind, name), its in (*own.items(), (("keyword", "additionalProperties"), further(schema))):
        if not all(_target(each, schema) for each in _references(its)):
            return f"{kind} {name!r} refers to what is no definition; move that to $defs"
    return ""


class Definitions:
    """The definitions of a schema that can be held, as parameters reach them."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._next: dict[tuple[str, str], set[tuple[str, str]]] = {}
        """Those that a definition refers to itself."""

    def with_reached(self, its: Any) -> Any:
        """A parameter's schema with the definitions that it reaches, and no other."""
        if its is True:
            return its
        found, left = dict[tuple[str, str], None](), sorted(self._targets(its))
        while left:
            if (target := left.pop()) not in found:
                found[target] = None
                if target not in self._next:
                    self._next[target] = self._targets(self._schema[target[0]][target[1]])
                left += sorted(self._next[target])
        held = {key: value for key, value in its.items() if key not in DEFINITIONS}
        for key, name in sorted(found):
            held.setdefault(key, {})[name] = self._schema[key][name]
        return held

    def _targets(self, value: Any) -> set[tuple[str, str]]:
        found = (_target(each, self._schema) for each in _references(value))
        return {each for each in found if each is not None}


def _references(value: Any) -> Iterator[str]:
    """What is referred to anywhere in a value."""
    left: list[Any] = [value]
    while left:
        each: Any = left.pop()
        if isinstance(each, Mapping):
            inner = cast("Schema", each)
            if isinstance(reference := inner.get("$ref"), str):
                yield reference
            left += inner.values()
        elif isinstance(each, list):
            left += cast("list[Any]", each)


def _target(reference: str, schema: Schema) -> tuple[str, str] | None:
    """The definition of a schema in which a reference ends; None where there is none."""
    root, _, rest = reference.partition("/")
    key, _, rest = rest.partition("/")
    name = unquote(rest.partition("/")[0]).replace("~1", "/").replace("~0", "~")
    is_known = root == "#" and key in DEFINITIONS and name in schema.get(key, {})
    return (key, name) if is_known else None
