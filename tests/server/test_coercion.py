"""The dialect that reads arguments by the types of a tool's schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from call_texts import block, invoke, parameter

from lostwax.server.formats.message import CallDelta, whole_message
from lostwax.server.formats.readers import reader_of

KEEP: Any = ...
"""The text itself, as a string."""
# The type in the schema, what the model wrote and whether it called it a string; the value.
VALUES: list[tuple[Any, str, bool, Any]] = [
    ("integer", "5", True, 5),
    ("integer", "5", False, 5),
    ("integer", " 5\n", True, 5),
    ("integer", "5.0", True, 5.0),
    ("integer", "5.5", True, KEEP),
    ("integer", "5.5", False, 5.5),
    ("integer", "five", True, KEEP),
    ("integer", "five", False, KEEP),
    ("integer", "true", True, KEEP),
    ("number", "5.5", True, 5.5),
    ("number", "-1e3", True, -1e3),
    ("number", "NaN", False, KEEP),
    ("boolean", "true", True, True),
    ("boolean", "False", True, False),
    ("boolean", "1", True, KEEP),
    ("null", "None", True, None),
    ("array", "[1, 2]", True, [1, 2]),
    ("array", '{"a": 1}', True, KEEP),
    ("object", '{"a": "é"}', True, {"a": "é"}),
    ("object", '{"a": 1, "a": 2}', True, KEEP),
    ("string", "5", True, KEEP),
    ("string", "5", False, KEEP),
    ("string", "null", False, KEEP),
    ("string", '"x"', False, "x"),
    ("string", '"x"', True, KEEP),
    ("string", "Paris", False, KEEP),
    (["string", "null"], "null", True, KEEP),
    (["string", "null"], "null", False, None),
    (["integer", "string"], "5", False, 5),
    (["integer", "null"], "null", True, None),
    (None, "5", True, KEEP),
    (None, "5", False, 5),
    (None, "True", False, True),
    (None, "so", False, KEEP),
    (None, "[1", False, KEEP),
    ("colour", "5", True, KEEP),
]


def coerced(schema: Any, text: str, is_string: bool, name: str = "a") -> Any:
    """The value of one argument under the schema of all."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    reader = reader_of("deepseekv32", thinks=False, tools=tools, coerce=True)
    message = whole_message(reader, block(invoke("f", parameter(name, text, is_string))))
    assert (reader.num_calls, reader.broken) == (1, "")
    return json.loads(message.calls[0].arguments)[name]


@pytest.mark.parametrize(("type_", "text", "is_string", "value"), VALUES)
def test_an_argument_has_its_schemas_type_where_it_can(
    type_: Any, text: str, is_string: bool, value: Any
) -> None:
    property_ = {} if type_ is None else {"type": type_}
    found = coerced({"properties": {"a": property_}}, text, is_string)
    expected = text if value is KEEP else value
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("word", ["anyOf", "oneOf"])
def test_alternatives_are_looked_into(word: str) -> None:
    schema = {"properties": {"a": {word: [{"type": "integer"}, {"type": "null"}, {"const": 1}, 5]}}}
    assert coerced(schema, "5", True) == 5
    assert coerced(schema, "None", True) is None


@pytest.mark.parametrize(
    "schema",
    [None, [], "x", {"properties": []}, {"properties": {"a": True}}, {"properties": {"b": {}}},
     {"properties": {"a": {"type": 5, "anyOf": 5}}}],
)  # fmt: skip
def test_a_schema_that_says_nothing_changes_nothing(schema: Any) -> None:
    assert coerced(schema, "5", True) == "5"
    assert coerced(schema, "5", False) == 5


def test_a_string_still_streams_and_another_value_waits_for_its_end() -> None:
    schema = {"properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
    tools = [{"name": "f", "parameters": schema}]
    reader = reader_of("deepseekv32", thinks=False, tools=tools, coerce=True)
    whole = block(invoke("f", parameter("a", "one"), parameter("b", "12")))
    at = whole.index("ne")
    assert reader.push(whole[:at]).calls == [CallDelta(0, "f", '{"a": "o')]
    at, end = whole.index("12"), whole.index("12") + 2
    assert reader.push(whole[whole.index("ne") : at]).calls == [CallDelta(0, None, 'ne", "b": ')]
    assert reader.push(whole[at:end]).calls == []
    assert reader.push(whole[end:]).calls == [CallDelta(0, None, "12}")]


def test_without_the_dialect_the_model_decides() -> None:
    tools = [{"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}]
    reader = reader_of("deepseekv32", thinks=False, tools=tools)
    message = whole_message(reader, block(invoke("f", parameter("a", "5"))))
    assert message.calls == [CallDelta(0, "f", '{"a": "5"}')]


@pytest.mark.parametrize("format", ["deepseekv31", "none"])
def test_a_format_whose_arguments_are_json_has_nothing_to_coerce(format: Any) -> None:
    with pytest.raises(ValueError, match=f"types of their own in {format}"):
        reader_of(format, thinks=False, coerce=True)
