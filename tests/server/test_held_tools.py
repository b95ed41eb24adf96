"""What the schemas of tools hold of calls that must come, and what they leave free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from written_calls import VOCABULARY, fits, written

from lostwax.server.formats.encoding_v32 import DSML
from lostwax.server.formats.message import whole_message
from lostwax.server.formats.readers import reader_of
from lostwax.server.grammar.compile_grammar import compile_grammar
from lostwax.server.grammar.grammar import BadGrammar
from lostwax.server.grammar.tool_grammar import Choice, Format, tool_grammar

OBJECT = {"type": "object"}
NUMBER = {"type": "integer"}
REFERS = {"$ref": "#/$defs/n"}
LISTED = OBJECT | {"properties": {"a": NUMBER}}
ODD_NAME = OBJECT | {"properties": {"a/b.c -": NUMBER}, "additionalProperties": True}
FURTHER: list[tuple[Mapping[str, Any], Mapping[str, Any], bool]] = [
    (OBJECT | {"additionalProperties": True}, {"a": "x", "b": [1]}, True),
    (OBJECT | {"additionalProperties": {"type": "string"}}, {"a": "x", "b": "y"}, True),
    (OBJECT | {"additionalProperties": {"type": "string"}}, {"a": 1}, False),
    (OBJECT | {"additionalProperties": False}, {"a": 1}, False),
    (OBJECT | {"additionalProperties": False}, {}, True),
    (OBJECT | {"$schema": "https://json-schema.org/draft/2020-12/schema"}, {"a": 1}, True),
    (OBJECT | {"title": "T", "$id": "x", "$comment": "y", "$defs": {}}, {"a": 1}, True),
    (LISTED | {"additionalProperties": True}, {"a": 1, "b": "x", "c": None}, True),
    (LISTED | {"additionalProperties": True}, {"ab": "x", "": 1}, True),
    (LISTED | {"additionalProperties": True}, {}, True),
    (LISTED | {"additionalProperties": True}, {"a": "x"}, False),
    (LISTED | {"additionalProperties": True}, {"b": 1, "a": 1}, False),
    (LISTED | {"additionalProperties": NUMBER, "required": ["a"]}, {"a": 1, "b": 1}, True),
    (LISTED | {"additionalProperties": NUMBER, "required": ["a"]}, {"a": 1, "b": "x"}, False),
    (LISTED | {"additionalProperties": NUMBER, "required": ["a"]}, {"b": 1}, False),
    (LISTED, {"a": 1, "b": 1}, False),
    (OBJECT | {"additionalProperties": REFERS, "$defs": {"n": NUMBER}}, {"b": 1}, True),
    (OBJECT | {"additionalProperties": REFERS, "$defs": {"n": NUMBER}}, {"b": "x"}, False),
    (ODD_NAME, {"a/b.c -": 1, "a/bxc -": "x"}, True),
    (ODD_NAME, {"a/b.c -": "x"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "arguments", "may"), FURTHER)
@pytest.mark.parametrize("strict", [False, True])
def test_further_parameters_come_where_the_schema_has_them(
    schema: Mapping[str, Any], arguments: Mapping[str, Any], may: bool, strict: bool
) -> None:
    tool = {"name": "f", "parameters": schema, "strict": strict}
    text = written(("f", {name: value for name, value in arguments.items() if name}))
    assert fits(tool_grammar("deepseekv32", [tool], "required"), text) is may


def test_a_name_that_is_free_is_one_that_readers_read() -> None:
    tool = {"name": "f", "parameters": OBJECT, "strict": True}
    for char in '\x00\x1f\x7f\x85\u2028\u2029"':
        text = written(("f", {"b": 1})).replace('"b"', f'"{char}"')
        assert whole_message(reader_of("deepseekv32", thinks=False), text).calls == []
        assert not fits(tool_grammar("deepseekv32", [tool], "required"), text), repr(char)


UNHELD: dict[str, tuple[Mapping[str, Any], str]] = {
    "uniqueItems": ({"type": "array", "uniqueItems": True}, r"Unimplemented keys: \["),
    "look-ahead": ({"type": "string", "pattern": "^(?!a)"}, "^look-around.*, in the pattern '"),
    "long": ({"type": "string", "pattern": f"^(?!{'a' * 900})"}, "^look-around"),
    "format": ({"type": "string", "format": "binary"}, "Unknown format: binary"),
    "not": ({"type": "string", "not": {"const": "a"}}, "Unimplemented keys"),
    "contains": ({"type": "array", "contains": {"const": 1}}, "Unimplemented keys"),
    "propertyNames": ({"type": "object", "propertyNames": {}}, "Unimplemented keys"),
    "marks": ({"enum": [f"<{DSML}"], "type": ["string", "null"]}, "begins a call"),
}  # fmt: skip


def _tool(its: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    own = {"other": {"type": "string"}, "x": its, "n": NUMBER}
    return {"name": "f", "parameters": OBJECT | {"properties": own}, "strict": strict}


@pytest.mark.parametrize("name", UNHELD)
def test_a_parameter_that_cannot_be_held_is_free_and_the_others_are_held(name: str) -> None:
    tools = [_tool(UNHELD[name][0], strict=False), _tool({}, strict=True) | {"name": "g"}]
    grammar = tool_grammar("deepseekv32", tools, "required")
    assert fits(grammar, written(("f", {"other": "y", "x": [1, 1], "n": 1})))
    assert not fits(grammar, written(("f", {"other": "y", "x": [1, 1], "n": "1"})))
    by_name = tool_grammar("deepseekv32", tools, {"name": "f"})
    assert fits(by_name, written(("f", {"x": {"a": None}})))


def _refusal(format: Format, its: Mapping[str, Any], choice: Choice) -> str:
    """Why a strict tool is not held to a parameter."""
    try:
        grammar = tool_grammar(format, [_tool(its, strict=True)], choice)
        assert grammar is not None
        compile_grammar(grammar, VOCABULARY)
    except BadGrammar as error:
        return str(error)
    raise AssertionError("it is held")


@pytest.mark.parametrize("name", UNHELD)
def test_what_a_strict_tool_cannot_be_held_to_is_named_with_its_place(name: str) -> None:
    its, why = UNHELD[name]
    for choice in ("auto", "required"):
        place, _, said = _refusal("deepseekv32", its, choice).partition(": ")
        assert place == "tool 'f', parameter 'x'"
        assert re.search(why, said)
        assert said.endswith(", or leave strict out")


def test_arguments_of_v31_are_free_where_they_cannot_be_held() -> None:
    its, _ = UNHELD["uniqueItems"]
    loose = tool_grammar("deepseekv31", [_tool(its, strict=False)], "required")
    assert loose is not None
    compile_grammar(loose, VOCABULARY)
    said = _refusal("deepseekv31", its, "required")
    assert said.startswith("tool 'f', in 'x': Unimplemented keys")


def _nested(depth: int) -> dict[str, Any]:
    its: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        its = {"type": "object", "properties": {"a": its}}
    return its


@pytest.mark.parametrize("format", ["deepseekv32", "deepseekv31"])
def test_a_schema_that_is_nested_too_deep_is_free_and_fails_no_other_tool(format: Format) -> None:
    deep = _tool(_nested(40), strict=False)
    others = _tool(_nested(2), strict=True) | {"name": "g"}
    grammar = tool_grammar(format, [deep, others], "required")
    assert grammar is not None
    grammar.require_small()
    compile_grammar(grammar, VOCABULARY)
    if format == "deepseekv32":
        assert fits(grammar, written(("f", {"x": [1]})))
        assert not fits(grammar, written(("f", {"x": [1], "n": "1"})))
        assert not fits(grammar, written(("g", {"x": [1]})))


@pytest.mark.parametrize(
    ("format", "place"),
    [("deepseekv32", "tool 'f', parameter 'x', in 'a': "), ("deepseekv31", "tool 'f', in 'x': ")],
)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_strict_tool_that_is_nested_too_deep_is_refused_by_its_place(
    format: Format, place: str, choice: Choice
) -> None:
    said = _refusal(format, _nested(40), choice)
    assert said.startswith(f"{place}it is nested ")
    assert said.endswith(
        "deep, more than 64; make it flatter, or take that out, or leave strict out"
    )


def test_an_answer_that_is_nested_too_deep_beside_tools_is_refused_by_name() -> None:
    with pytest.raises(
        BadGrammar, match=r"^the answer's schema, in 'a': it is nested 81 deep, more"
    ):
        tool_grammar("deepseekv32", [_tool({}, strict=False)], "auto", answer=_nested(40))
