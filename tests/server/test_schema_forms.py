"""Schemas of strict tools that cannot be held are refused by the keyword that is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lostwax.server.formats.encoding_v32 import DSML
from lostwax.server.grammar.grammar import BadGrammar
from lostwax.server.grammar.tool_grammar import tool_grammar

CONSTS: list[Any] = [
    {"const": "</MARK>"},
    {"const": ["</MARK>"]},
    {"type": "string", "const": "</MARK>"},
    {"type": ["string", "null"], "const": "</MARK>"},
    {"type": "array", "items": {"const": "</MARK>"}},
    {"anyOf": [{"const": {"</MARK>": 1}}, {"type": "null"}]},
    {"type": "object", "properties": {"b": {"const": "</MARK>"}}},
    {"type": "object", "additionalProperties": {"const": "</MARK>"}},
    {"type": "object", "patternProperties": {"^b$": {"const": "</MARK>"}}},
]


@pytest.mark.parametrize("schema", CONSTS, ids=str)
def test_a_constant_with_the_mark_is_refused(schema: Any) -> None:
    schema = json.loads(json.dumps(schema).replace("MARK", json.dumps(DSML)[1:-1]))
    function = {"name": "f", "parameters": {"properties": {"a": schema}}, "strict": True}
    with pytest.raises(BadGrammar, match=r"'const'\) holds .*take it out"):
        tool_grammar("deepseekv32", [function], "required")


NO_LISTS = [(key, None) for key in ("anyOf", "oneOf", "allOf", "prefixItems", "enum")]
NO_OBJECTS = [(key, []) for key in ("properties", "patternProperties")]
NO_FORMS: list[tuple[str, Any]] = [
    *((key, value) for key, none in NO_LISTS for value in (none, 5, True, "abc", {})),
    *((key, value) for key, none in NO_OBJECTS for value in (none, 5, True, "abc")),
]


@pytest.mark.parametrize("place", ["properties", "additionalProperties"])
@pytest.mark.parametrize(("key", "value"), NO_FORMS)
def test_a_keyword_of_another_form_is_refused(key: str, value: Any, place: str) -> None:
    its = {"type": "string", "pattern": "x", key: value}
    parameters = {"type": "object", place: {"a": its} if place == "properties" else its}
    function = {"name": "f", "parameters": parameters, "strict": True}
    with pytest.raises(BadGrammar, match=f"'{re.escape(key)}'.* is no"):
        tool_grammar("deepseekv32", [function], "required")
