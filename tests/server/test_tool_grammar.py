"""Grammars of tool calls, over the trained model's vocabulary: what the encoder writes fits them,
and whatever fits is read back as calls that the schemas hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from written_calls import CODEC, VOCABULARY, fits, written

from lostwax.server.formats import encoding_v31 as v31
from lostwax.server.formats.encoding_v32 import DSML
from lostwax.server.formats.message import whole_message
from lostwax.server.formats.parse_v32 import ParsedMessage, parse_completion
from lostwax.server.formats.readers import reader_of
from lostwax.server.grammar.compile_grammar import compile_grammar
from lostwax.server.grammar.grammar import BadGrammar, Grammar
from lostwax.server.grammar.tool_grammar import Choice, Format, tool_grammar

MARKS = [CODEC.marks[each] for each in (DSML, v31.CALLS, v31.CALL) if each in CODEC.marks]
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where."},
        "unit": {"enum": ["c", "f"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "place": {"$ref": "#/$defs/place"},
        "code": {"type": "string", "pattern": "^[A-Z]{2}$"},
        "note": {},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "array", "items": {"type": "number"}, "maxItems": 2}},
}
NOTHING = {"type": "object", "properties": {}}
OPEN = {"type": "object"}
OPTIONAL = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}}
SCHEMAS = {"get_weather": WEATHER, "now": NOTHING, "flags": OPTIONAL, "bare": None, "open": OPEN}


def tool(name: str, *, strict: bool = False) -> dict[str, Any]:
    function = {"name": name, "parameters": SCHEMAS[name], "strict": strict}
    return {"type": "function", "function": function}


TOOLS = [tool(name) for name in SCHEMAS]
STRICT = [tool(name, strict=name == "get_weather") for name in SCHEMAS]
BY_NAME: Choice = {"type": "function", "function": {"name": "flags"}}


def answers(
    grammar: Grammar | None, count: int, most: int = 400, *, ends_early: bool = True
) -> list[str]:
    """Answers of a model that picks anything that may come, the end where it may (sooner or
    later without `ends_early`, calls at every second chance); those that come to one."""
    assert grammar is not None
    matcher, rng = compile_grammar(grammar, VOCABULARY), np.random.default_rng(0)
    found = list[str]()
    for _ in range(count):
        own, ids = matcher.deep_copy(), list[int]()
        mask = allocate_token_bitmask(1, VOCABULARY.vocab_size)
        early = 1.0 if ends_early else 0.02
        while len(ids) < most and not (own.is_accepting() and rng.random() < early):
            fill_next_token_bitmask(own, mask)
            may = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
            short = [i for i in may.tolist() if len(VOCABULARY.bytes_of[i]) <= 2]
            marks = [i for i in MARKS if i in may]
            if marks and not ends_early and rng.random() < 0.5:
                may, short = marks, []
            ids.append(int(rng.choice(short if short and rng.random() < 0.9 else may)))
            if ids[-1] == VOCABULARY.eos:
                ids.pop()
                break
            assert own.consume_token(ids[-1])
        if own.is_accepting():
            found.append(CODEC.decode_with_marks(ids))
    return found


def calls_of(text: str) -> ParsedMessage:
    return parse_completion(text, "chat")


CALLS: list[tuple[tuple[str, Mapping[str, Any]], ...]] = [
    (("now", {}),),
    (("get_weather", {"city": 'Köln <b> \n"x" &', "days": 3}),),
    (("get_weather", {"city": "x", "unit": "c", "days": 14, "place": [1, 2.5], "note": "hm"}),),
    (("get_weather", {"city": "", "days": 1, "code": None} | {"note": {"a": [1]}}),),
    (("flags", {}), ("flags", {"b": None}), ("flags", {"a": True, "b": None}), ("now", {})),
    (("bare", {}), ("open", {})),
    (("open", {"any": "text", "other": [1]}),),
]


@pytest.mark.parametrize("calls", CALLS)
def test_what_the_encoder_writes_fits(calls: tuple[tuple[str, Mapping[str, Any]], ...]) -> None:
    given = [(name, {k: v for k, v in args.items() if k != "code"}) for name, args in calls]
    assert fits(tool_grammar("deepseekv32", TOOLS, "required"), written(*given))
    if len(given) > 1:
        alone = tool_grammar("deepseekv32", TOOLS, "required", parallel=False)
        assert not fits(alone, written(*given))
        assert fits(alone, written(given[0]))


BAD: list[tuple[str, Mapping[str, Any]]] = [
    ("get_weather", {"days": 3}),
    ("get_weather", {"city": "x", "days": 15}),
    ("get_weather", {"city": "x", "days": "3"}),
    ("get_weather", {"city": "x", "unit": "k", "days": 3}),
    ("get_weather", {"city": "x", "days": 3, "place": [1, 2, 3]}),
    ("get_weather", {"city": "x", "days": 3, "more": 1}),
    ("now", {"a": 1}),
    ("bare", {"a": 1}),
    ("gone", {}),
]


@pytest.mark.parametrize("call", BAD)
def test_what_no_tool_takes_does_not_fit(call: tuple[str, Mapping[str, Any]]) -> None:
    assert not fits(tool_grammar("deepseekv32", TOOLS, "required"), written(call))
    if call[0] == "get_weather":
        assert not fits(tool_grammar("deepseekv32", STRICT, "auto"), written(call))


def test_a_required_call_has_no_text_before_it_and_a_named_one_is_that_one() -> None:
    required = tool_grammar("deepseekv32", TOOLS, "required")
    assert not fits(required, "No.")
    assert not fits(required, written(("now", {}), content="Let me look."))
    named = tool_grammar("deepseekv32", TOOLS, BY_NAME)
    assert fits(named, written(("flags", {"a": True})))
    assert not fits(named, written(("now", {})))
    assert not fits(named, written(("flags", {}), ("flags", {})))


def test_with_strict_tools_an_answer_may_be_text_or_calls_behind_it() -> None:
    grammar = tool_grammar("deepseekv32", STRICT, "auto")
    assert fits(grammar, "Just < text.\n\n<")
    assert fits(grammar, written(("get_weather", {"city": "x", "days": 1}), content="I look."))
    assert fits(grammar, written(("flags", {"a": "what its schema does not allow"})))
    assert not fits(grammar, f"I look. <{DSML}function_calls>")


WRONG = {"city": "x", "days": 99}
UNHELD: list[tuple[Format, str]] = [
    ("deepseekv32", written(("get_weather", WRONG)).split("function_calls>\n")[1][:-3]),
    ("deepseekv32", f'<{DSML}invoke name="get_weather">{json.dumps(WRONG)}</{DSML}invoke>'),
    ("deepseekv32", f'<{DSML}invoke name="get_weather"/>'),
    ("deepseekv32", f"</{DSML}parameter>"),
    ("deepseekv31", f"{v31.CALL}get_weather{v31.SEPARATOR}{json.dumps(WRONG)}{v31.CALL_END}"),
    *(("deepseekv31", mark) for mark in v31.TOOL_MARKS[:5]),
]


@pytest.mark.parametrize(("format", "text"), UNHELD)
def test_text_holds_nothing_that_readers_take_for_a_call(format: Format, text: str) -> None:
    grammar = tool_grammar(format, STRICT, "auto")
    for before in ("", "I look. "):
        assert not fits(grammar, before + text)
    assert fits(grammar, "I look. < <｜ </ <" + DSML[1:])  # noqa: RUF001


INNER: list[tuple[Any, str, bool]] = [
    ({}, '["a", {"b": 1.5}]', True),
    ({}, '["<MARK>"]', False),
    ({}, '{"<MARK>": 1}', False),
    ({"type": "array"}, '[["</MARK>"]]', False),
    ({"type": "array", "items": {"type": "string"}}, '["a \\n ｜ <"]', True),  # noqa: RUF001
    ({"type": "array", "items": {"type": "string"}}, '["</MARK>"]', False),
    ({"type": "object", "properties": {"b": {"type": "string"}}}, '{"b": "x", "c": 1}', True),
    ({"type": "object", "properties": {"b": {"type": "string"}}}, '{"c": "<MARK>"}', False),
    ({"type": "object", "properties": {"b": {"type": "integer"}}}, '{"b": 1, "</MARK>": 1}', False),
    ({"type": "object"}, '{"</MARK>": 1}', False),
    ({"type": "object"}, '{"b": {"c": [1]}}', True),
    ({"type": "object", "additionalProperties": {"type": "string"}}, '{"</MARK>": "x"}', False),
    ({"type": "object", "additionalProperties": {"type": "string"}}, '{"b": "x"}', True),
    ({"properties": {"b": {"type": "integer"}}}, '{"</MARK>": 1}', False),
    ({"properties": {"b": {"type": "integer"}}}, '{"b": 1, "c": ["x"]}', True),
    ({"type": "string", "minLength": 1}, '"<MARK>"', False),
    ({"type": ["string", "null"]}, '"</MARK>"', False),
    ({"type": ["string", "null"]}, "null", True),
    ({"type": ["string"]}, '"</MARK>"', False),
    ({"type": ["array", "object"]}, '{"a": "</MARK>"}', False),
    ({"type": "string", "pattern": "^a.*$"}, '"a </MARK> b"', False),
    ({"type": "string", "pattern": "^a.*$"}, '"a b"', True),
    ({"description": "Anything."}, '"</MARK>"', False),
    ({"description": "Anything."}, '{"a": ["b"]}', True),
    ({"minLength": 2}, '"</MARK>"', False),
    ({"minLength": 2}, '"ab"', True),
    ({"enum": [1, "</MARK>"]}, '"</MARK>"', False),
    ({"enum": [1, "</MARK>"]}, "1", True),
    ({"anyOf": [{"const": ["x"]}, {"const": 2}]}, '["x"]', True),
    ({"oneOf": [{"type": "array"}, {"type": "null"}]}, '["</MARK>"]', False),
    ({"allOf": [{"type": "array"}]}, '["</MARK>"]', False),
    ({"type": "array", "prefixItems": [{"type": "string"}]}, '["</MARK>"]', False),
    (
        {"type": "object", "patternProperties": {"^a$": {"type": "string"}}},
        '{"a": "</MARK>"}',
        False,
    ),
    ({"$ref": "#/definitions/t"}, '["</MARK>"]', False),
    ({"anyOf": [{"$ref": "#/$defs/s"}, {"type": "null"}]}, '"<MARK>"', False),
    ({"anyOf": [{"$ref": "#/$defs/s"}, {"type": "null"}]}, '"x"', True),
]


@pytest.mark.parametrize(("schema", "value", "may"), INNER)
def test_no_json_holds_a_tag_that_ends_its_parameter(schema: Any, value: str, may: bool) -> None:
    schema = json.loads(json.dumps(schema).replace("MARK", json.dumps(DSML)[1:-1]))
    held = {"type": "object", "properties": {"a": schema}, "$defs": {"s": {"type": "string"}}}
    held["definitions"] = {"t": {"type": "array"}}
    function = {"name": "f", "parameters": held, "strict": True}
    text = written(("f", {"a": []})).replace("[]", value.replace("MARK", DSML))
    assert bool(whole_message(reader_of("deepseekv32", thinks=False), text).calls) is may
    assert fits(tool_grammar("deepseekv32", [function], "required"), text) is may


UNREAD = ("is too large", "a key stands twice")
"""What is wrong with JSON that a schema allows: no grammar of the library holds it."""


@pytest.mark.parametrize("format", ["deepseekv32", "deepseekv31"])
@pytest.mark.parametrize("choice", ["auto", "required", BY_NAME])
def test_whatever_fits_is_read_by_the_servers_reader(format: Format, choice: Choice) -> None:
    every = [tool(name, strict=name != "open") for name in SCHEMAS if name != "open"]
    found = answers(tool_grammar(format, every, choice), 30, ends_early=choice != "auto")
    assert len(found) > 5
    for text in found:
        reader = reader_of(format, thinks=False, tools=every)
        message = whole_message(reader, text)
        if reader.broken.endswith(UNREAD):
            continue
        assert not reader.broken, text
        assert choice == "auto" or message.calls
        for call in message.calls:
            assert call.name
            Draft202012Validator(SCHEMAS[call.name] or {}).validate(json.loads(call.arguments))


def test_an_answer_is_free_where_nothing_is_asked_of_it() -> None:
    assert tool_grammar("deepseekv32", TOOLS, "auto") is None
    assert tool_grammar("deepseekv32", STRICT, "none") is None
    assert tool_grammar("deepseekv32", [], "auto") is None


@pytest.mark.parametrize("choice", ["required", BY_NAME])
def test_whatever_fits_is_read_as_calls_that_the_schemas_hold(choice: Choice) -> None:
    tools = [each for each in TOOLS if each["function"]["name"] != "open"]
    found = answers(tool_grammar("deepseekv32", tools, choice), 60)
    assert len(found) > 30
    for text in found:
        message = calls_of(text)
        assert message.tool_calls
        assert message.content == ""
        for call in message.tool_calls:
            Draft202012Validator(SCHEMAS[call.name] or {}).validate(call.arguments)


def test_calls_of_v31_are_json_between_marks() -> None:
    grammar = tool_grammar("deepseekv31", TOOLS, "required")
    found = answers(grammar, 40)
    assert found
    for text in found:
        inner = text.removeprefix("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>")  # noqa: RUF001
        name, _, rest = inner.partition("<｜tool▁sep｜>")  # noqa: RUF001
        arguments = json.loads(rest.partition("<｜tool▁call▁end｜>")[0])  # noqa: RUF001
        Draft202012Validator(SCHEMAS[name] or {}).validate(arguments)


STRANGE: list[tuple[Any, str]] = [
    ({"type": "object", "anyOf": [{}]}, "'anyOf'"),
    ({"type": "array"}, "no object"),
    ({"type": "object", "required": ["a"]}, "'a' is required"),
    ({"type": "object", "properties": {'a"b': {}}}, "rename"),
    ({"type": "object", "properties": {"a": 3}}, "has no schema"),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}}, "refers to"),
    ({"type": "object", "additionalProperties": {"$ref": "#"}}, "refers to"),
    ({"type": "object", "additionalProperties": 3}, "is no schema"),
]


@pytest.mark.parametrize(("schema", "why"), STRANGE)
def test_a_strict_schema_that_cannot_be_held_is_refused_and_another_is_loosened(
    schema: Any, why: str
) -> None:
    function = {"name": "f", "parameters": schema}
    with pytest.raises(BadGrammar, match=why):
        tool_grammar("deepseekv32", [{**function, "strict": True}], "required")
    grammar = tool_grammar("deepseekv32", [function], "required")
    assert fits(grammar, written(("f", {"any": [1], "x": "y"})))


def test_a_choice_without_its_tool_is_refused() -> None:
    with pytest.raises(BadGrammar, match="'gone' is asked for"):
        tool_grammar("deepseekv32", TOOLS, {"type": "function", "function": {"name": "gone"}})
    with pytest.raises(BadGrammar, match="there is no tool"):
        tool_grammar("deepseekv32", [], "required")
    with pytest.raises(BadGrammar, match="rename"):
        tool_grammar("deepseekv32", [{"name": 'a"b'}], "required")


ANSWER = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "place": {"$ref": "#/$defs/place"}, "any": {}},
    "required": ["text"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "array", "items": {"type": "number"}, "maxItems": 2}},
}


@pytest.mark.parametrize("format", ["deepseekv32", "deepseekv31"])
def test_an_answer_of_a_schema_beside_tools_is_calls_or_that_and_nothing_else(
    format: Format,
) -> None:
    grammar = tool_grammar(format, STRICT, "auto", answer=ANSWER)
    assert fits(grammar, '{"text": "hm", "place": [1, 2]}')
    for wrong in ("hm", '{"place": [1]}', '{"text": "hm", "place": [1, 2, 3]}', "", "{}"):
        assert not fits(grammar, wrong), wrong
    found = answers(grammar, 60, ends_early=False)
    kinds = {is_call: 0 for is_call in (False, True)}
    for text in found:
        reader = reader_of(format, thinks=False, tools=STRICT)
        message = whole_message(reader, text)
        if reader.broken.endswith(UNREAD):
            continue
        assert not reader.broken, text
        kinds[bool(message.calls)] += 1
        for call in message.calls:
            assert message.content == ""
            if call.name == "get_weather":  # the others are free
                Draft202012Validator(WEATHER).validate(json.loads(call.arguments))
        if not message.calls:
            Draft202012Validator(ANSWER).validate(json.loads(message.content))
    assert min(kinds.values()) > 3


def test_any_object_may_be_the_answer_beside_tools() -> None:
    grammar = tool_grammar("deepseekv32", TOOLS, "auto", answer={"type": "object"})
    assert fits(grammar, '{"a": [1, {"b": null}]}')
    assert not fits(grammar, "[1]")
    assert fits(grammar, written(("now", {})))
    assert not fits(grammar, written(("now", {}), content="Now."))
    with pytest.raises(BadGrammar, match="'properties' of the answer is no object"):
        tool_grammar("deepseekv32", TOOLS, "auto", answer={"properties": 7})


def test_a_schema_that_cannot_be_held_is_named_and_not_the_grammar_that_was_made_of_it() -> None:
    unique = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    odd = {"type": "object", "properties": {"a": unique}, "required": ["a"]}
    held = {"type": "function", "function": {"name": "one", "parameters": odd, "strict": True}}
    why = ': Unimplemented keys: ["uniqueItems"]; take that out'
    of_tool = ("tool 'one', parameter 'a'", ", or leave strict out")
    for tools, answer, (whose, otherwise) in (
        (TOOLS, odd, ("the answer's schema, in 'a'", "")), ([held], None, of_tool),
        ([held], ANSWER, of_tool), ([*STRICT, held], ANSWER, of_tool),
    ):  # fmt: skip
        grammar = tool_grammar("deepseekv32", tools, "auto", answer=answer)
        assert grammar is not None
        with pytest.raises(BadGrammar) as refused:
            compile_grammar(grammar, VOCABULARY)
        assert str(refused.value) == whose + why + otherwise
