"""Schemas of tools, of any form and size: a grammar is made of each, or it is refused by name, at a
cost in what was sent."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lostwax.server.grammar.grammar import MAX_TOOLS_BYTES, BadGrammar
from lostwax.server.grammar.tool_grammar import Choice, Format, tool_grammar

ODD: list[dict[str, Any]] = [
    {"required": None},
    {"properties": None},
    {"properties": {"a": {"enum": 5}}},
    {"required": [{}], "properties": {}},
    {"properties": [1]},
    {"required": 5},
    {"required": ["a", 1]},
    {"$defs": 5, "properties": {"a": {"$ref": "#/$defs/b"}}},
]


@pytest.mark.parametrize("schema", ODD)
@pytest.mark.parametrize("format", ["deepseekv32", "deepseekv31"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_of_another_form_is_refused_by_the_name_of_its_tool(
    schema: Mapping[str, Any], format: Format, strict: bool
) -> None:
    tool = {"name": "odd", "parameters": schema, "strict": strict}
    with pytest.raises(BadGrammar, match="tool 'odd': '"):
        tool_grammar(format, [tool], "auto" if strict else "required")


_WRITTEN = (
    "type properties required enum const $defs definitions $ref items additionalProperties anyOf"
    " default pattern a"
)
_KEYS = st.sampled_from([*_WRITTEN.split(), 'b"', ""])
_WORDS = ["object", "string", "a", "#", "#/$defs/a", "#/definitions/a/properties/a", "#/$defs/~1"]
_LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(_WORDS)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=30,
)
_SCHEMAS = st.dictionaries(_KEYS, _VALUES, max_size=6)


@settings(max_examples=400, deadline=None)
@given(
    _SCHEMAS,
    st.sampled_from(["deepseekv32", "deepseekv31"]),
    st.sampled_from(["auto", "required", {"name": "odd"}]),
    st.booleans(),
)
def test_any_schema_makes_a_grammar_or_is_refused_by_name(
    schema: dict[str, Any], format: Format, choice: Choice, strict: bool
) -> None:
    tool = {"name": "odd", "parameters": schema, "strict": strict}
    refused: BadGrammar | None = None
    try:
        tool_grammar(format, [tool], choice)
    except BadGrammar as error:
        refused = error
    assert refused is None or "tool 'odd'" in str(refused)


def test_a_grammar_that_grows_too_large_is_not_made_to_its_end() -> None:
    """15 tools of 62 KB, half definitions: written out for each parameter they took 4 GB."""
    shared: dict[str, Any] = {f"d{i}": {"enum": [f"{'x' * 40}{i}"]} for i in range(450)}
    shared["all"] = {"anyOf": [{"$ref": f"#/$defs/d{i}"} for i in range(450)]}
    own = {f"p{i}": {"$ref": "#/$defs/all", "title": str(i)} for i in range(400)}
    schema = {"type": "object", "properties": own, "$defs": shared}
    tools = [{"name": f"t{i}", "parameters": schema, "strict": True} for i in range(15)]
    tracemalloc.start()
    began_s = time.process_time()
    with pytest.raises(BadGrammar, match=f"more than {MAX_TOOLS_BYTES} bytes"):
        tool_grammar("deepseekv32", tools, "required")
    assert time.process_time() - began_s < 2
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_equal_parameters_are_written_once_however_many_there_are() -> None:
    shared = {"one": {"enum": [f"{'x' * 40}{i}" for i in range(600)]}}
    own = {f"p{i}": {"$ref": "#/$defs/one"} for i in range(200)}
    tool = {"name": "t", "parameters": {"type": "object", "properties": own, "$defs": shared}}
    grammar = tool_grammar("deepseekv32", [tool], "required")
    assert grammar is not None
    grammar.require_small()


def test_a_parameter_brings_the_definitions_that_it_reaches_and_no_other() -> None:
    definitions = {
        "far/~": {"type": "null"},
        "near": {"items": {"$ref": "#/$defs/far~1~0"}, "allOf": [{"$ref": "#/$defs/near"}]},
        "else": {"const": "unreached"},
    }
    own = {"a": {"$ref": "#/$defs/near"}, "b": {"type": "integer"}}
    schema = {"type": "object", "properties": own, "$defs": definitions}
    grammar = tool_grammar("deepseekv32", [{"name": "t", "parameters": schema}], "required")
    assert grammar is not None
    schemas = [each.schema for each in grammar.held]
    assert not any("unreached" in each for each in (grammar.text, *schemas))
    held = {"near": definitions["near"], "far/~": definitions["far/~"]}
    found = [json.loads(each).get("$defs") for each in schemas]
    assert held in found
    assert None in found


def test_a_definition_that_refers_to_the_whole_schema_is_refused() -> None:
    definitions = {"node": {"items": {"$ref": "#"}}}
    own = {"a": {"$ref": "#/$defs/node"}}
    schema = {"type": "object", "properties": own, "$defs": definitions}
    tool = {"name": "t", "parameters": schema, "strict": True}
    with pytest.raises(BadGrammar, match="definition 'node' refers to"):
        tool_grammar("deepseekv32", [tool], "required")
