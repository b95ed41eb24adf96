"""Ways to ask for a format of answers: which grammar each means, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from scripted_runtime import CODEC, EOS_ID, VOCAB

from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.messages import EngineInfo, Submit
from lostwax.server.formats.encoding_v32 import THINK_END
from lostwax.server.gateway.api_schema import schema_of
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import KINDS, prepare
from lostwax.server.gateway.prepared import Job, Route
from lostwax.server.gateway.tokenizer import Codec, IdCodec
from lostwax.server.grammar.grammar import MAX_BYTES, Grammar

INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=512,
    max_reqs=1,
    max_top_logprobs=20,
    eos_token_ids=(EOS_ID,),
    chat_encoding=CHAT_V32,
)
NEEDED: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi?"}]},
    "completions": {"prompt": [1]},
}
ROUTES: tuple[Route, ...] = ("chat", "completions")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TEXT = json.dumps(SCHEMA)
OF_SCHEMA = Grammar("json_schema", TEXT)
NAMED = {"name": "n", "schema": SCHEMA, "strict": True, "description": "d"}
WAYS: list[tuple[dict[str, Any], Grammar | None, str]] = [
    ({"response_format": {"type": "text"}}, None, ""),
    ({"response_format": None}, None, ""),
    ({"response_format": {"type": "json_object"}}, Grammar("json_object"), "response_format"),
    (
        {"response_format": {"type": "json_schema", "json_schema": NAMED}},
        OF_SCHEMA,
        "response_format.json_schema.schema",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        OF_SCHEMA,
        "response_format.json_schema.schema",
    ),
    ({"guided_json": SCHEMA}, OF_SCHEMA, "guided_json"),
    ({"guided_json": TEXT}, OF_SCHEMA, "guided_json"),
    ({"json_schema": TEXT}, OF_SCHEMA, "json_schema"),
    ({"guided_regex": "a+"}, Grammar("regex", "a+"), "guided_regex"),
    ({"regex": "a+"}, Grammar("regex", "a+"), "regex"),
    ({"guided_choice": ["a", "ü"]}, Grammar("choice", '["a","ü"]'), "guided_choice"),
    ({"guided_grammar": "start: /a/"}, Grammar("lark", "start: /a/"), "guided_grammar"),
    ({"guided_grammar": 'root ::= "a"'}, Grammar("ebnf", 'root ::= "a"'), "guided_grammar"),
    ({"ebnf": 'root ::= "a"'}, Grammar("ebnf", 'root ::= "a"'), "ebnf"),
    ({"structured_outputs": {"json": SCHEMA}}, OF_SCHEMA, "structured_outputs.json"),
    ({"structured_outputs": {"json": TEXT}}, OF_SCHEMA, "structured_outputs.json"),
    ({"structured_outputs": {"regex": "a"}}, Grammar("regex", "a"), "structured_outputs.regex"),
    (
        {"structured_outputs": {"choice": ["a"], "disable_fallback": True}},
        Grammar("choice", '["a"]'),
        "structured_outputs.choice",
    ),
    (
        {"structured_outputs": {"grammar": "start: /a/"}},
        Grammar("lark", "start: /a/"),
        "structured_outputs.grammar",
    ),
    (
        {"structured_outputs": {"json_object": True}},
        Grammar("json_object"),
        "structured_outputs.json_object",
    ),
    ({"structured_outputs": {}}, None, ""),
    ({"guided_regex": "a", "regex": "a"}, Grammar("regex", "a"), "guided_regex"),
    (
        {"response_format": {"type": "text"}, "guided_regex": "a"},
        Grammar("regex", "a"),
        "guided_regex",
    ),
]


def _read(route: Route, codec: Codec = CODEC, **given: Any) -> tuple[Submit, str | None]:
    job = Job(route=route, model="fake", info=INFO, max_tokens=512)
    read = prepare(json.dumps(NEEDED[route] | given, ensure_ascii=False).encode(), job, codec)
    return read.submits[0], read.options.format_param


def _refused(route: Route, codec: Codec = CODEC, **given: Any) -> ApiError:
    with pytest.raises(ApiError) as refused:
        _read(route, codec, **given)
    return refused.value


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("given", "grammar", "param"), WAYS)
def test_every_way_to_ask_for_a_format_is_one_grammar(
    route: Route, given: dict[str, Any], grammar: Grammar | None, param: str
) -> None:
    submit, named = _read(route, **given)
    found = submit.grammar
    if grammar is not None and grammar.kind == "json_schema":
        assert found is not None
        assert json.loads(found.text) == SCHEMA
        assert found.kind == "json_schema"
    else:
        assert found == grammar
    assert named == (param or None)
    Draft202012Validator(schema_of(KINDS[route])).validate(NEEDED[route] | given)


def test_the_order_of_a_schema_is_kept_as_the_client_wrote_it() -> None:
    schema = {"properties": {name: {} for name in "zab"}, "type": "object"}
    submit, _ = _read("chat", guided_json=schema)
    assert submit.grammar is not None
    assert list(json.loads(submit.grammar.text)["properties"]) == ["z", "a", "b"]


def test_a_format_begins_behind_the_reasoning_of_a_chat_that_thinks() -> None:
    thinks: dict[str, Any] = {"chat_template_kwargs": {"thinking": True}}
    submit, _ = _read("chat", regex="a", **thinks)
    assert submit.grammar_after == CODEC.marks[THINK_END]
    for other, route in ((_read("chat", regex="a"), "chat"), (_read("chat", **thinks), "chat")):
        assert other[0].grammar_after is None, route


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"regex": "a", "guided_json": SCHEMA}, "regex", "guided_json says what"),
    (
        {"response_format": {"type": "json_object"}, "ebnf": "root ::= 1"},
        "ebnf",
        "response_format says",
    ),
    (
        {"structured_outputs": {"regex": "a", "choice": ["b"]}},
        "structured_outputs",
        "structured_outputs.regex says",
    ),
    ({"regex": "a", "ignore_eos": True}, "ignore_eos", "leave this parameter out"),
    ({"regex": "a", "min_tokens": 2, "max_tokens": 9}, "min_tokens", "leave this parameter out"),
    ({"regex": "a", "stop_token_ids": [3]}, "stop_token_ids", "leave this parameter out"),
    ({"response_format": {"type": "structural_tag"}}, "response_format.type", "json_schema"),
    ({"response_format": {}}, "response_format.type", "is required"),
    (
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema",
        "is required",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
        "response_format.json_schema.schema",
        "is required",
    ),
    ({"guided_json": 7}, "guided_json", "as it is or as text"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": True}}},
        "response_format.json_schema.schema",
        "which is an object",
    ),
    ({"guided_json": "true"}, "guided_json", "which is an object"),
    ({"structured_outputs": {"json": " [1]"}}, "structured_outputs.json", "which is an object"),
    ({"guided_choice": []}, "guided_choice", "length >= 1"),
    ({"guided_choice": ["a"] * 1025}, "guided_choice", "length <= 1024"),
    ({"guided_regex": ""}, "guided_regex", "length >= 1"),
    (
        {"structured_outputs": {"structural_tag": "{}"}},
        "structured_outputs.structural_tag",
        "tool_choice",
    ),
    (
        {"structured_outputs": {"whitespace_pattern": "x"}},
        "structured_outputs.whitespace_pattern",
        "blanks",
    ),
    ({"guided_decoding_backend": "outlines"}, "guided_decoding_backend", "one way"),
]


@pytest.mark.parametrize(("given", "param", "why"), REFUSED)
def test_what_contradicts_or_is_not_held_is_refused_by_name(
    given: dict[str, Any], param: str, why: str
) -> None:
    for route in ROUTES:
        error = _refused(route, **given)
        assert (error.status, error.param) == (400, param)
        assert why in error.message, error.message


def test_the_document_offers_no_schema_that_is_not_held() -> None:
    for route, form in (
        ("chat", {"response_format": {"type": "json_schema", "json_schema": {"schema": True}}}),
        ("responses", {"text": {"format": {"type": "json_schema", "name": "n", "schema": True}}}),
    ):
        needed = {"input": "Hi"} if route == "responses" else NEEDED["chat"]
        error = next(Draft202012Validator(schema_of(KINDS[route])).iter_errors(needed | form), None)
        assert error is not None


def test_large_and_deep_grammars_are_refused_before_anything_is_done_with_them() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = {"items": deep}
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"guided_json": {"enum": ["x" * 100] * 700}}, f"more than {MAX_BYTES}"),
        ({"guided_json": deep}, "nested 70 deep"),
        ({"regex": "(" * 65 + ")" * 65}, "nested 65 deep"),
    )
    for given, why in cases:
        error = _refused("chat", **given)
        assert (error.status, error.code) == (400, "invalid_grammar")
        assert error.param == next(iter(given))
        assert why in error.message
    many = {"enum": ["(" * 80, '\\"[['], "description": "[" * 80}
    assert _read("chat", guided_json=many)[0].grammar is not None, "brackets in texts do not count"
    assert _read("chat", regex=r"\(" * 80)[0].grammar is not None


def test_without_a_tokenizer_a_format_is_refused() -> None:
    error = _refused("completions", IdCodec(), regex="a")
    assert (error.code, error.param) == ("unsupported_value", "regex")


def test_what_a_response_repeats_of_schemas_is_one_line() -> None:
    """It stands in the data of events, which end with their line."""
    form = {"type": "json_schema", "name": "a", "schema": {"type": "object"}}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "title": "a\nb"}}
    given = {"input": "a", "text": {"format": form}, "tools": [tool]}
    body = json.dumps(given, indent=1).replace("\n", "\r\n").encode()
    info = msgspec.structs.replace(INFO, max_context=4096)
    job = Job(route="responses", model="fake", info=info, max_tokens=4096)
    echo = prepare(body, job, CODEC).echo
    assert not {*b"\r\n"} & {*echo}
    assert json.loads(echo)["text"]["format"]["schema"] == form["schema"]
    assert json.loads(echo)["tools"][0]["parameters"] == tool["parameters"]
