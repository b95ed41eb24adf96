"""What clients send by default, or send back, is taken; what asks for more is refused by name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openai.types import completion_create_params
from openai.types.chat import (
    ChatCompletionMessage,
    ChatCompletionStreamOptionsParam,
)
from openai.types.chat import (
    completion_create_params as chat_create_params,
)
from scripted_runtime import CODEC, EOS_ID, VOCAB

from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.api_schema import schema_of
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import KINDS, prepare
from lostwax.server.gateway.prepared import Job, Prepared, Route

INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=512,
    max_reqs=1,
    max_top_logprobs=20,
    eos_token_ids=(EOS_ID,),
    chat_encoding=CHAT_V32,
)
ASK: dict[str, Any] = {"role": "user", "content": "Hi?"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Hi."}
NEEDED: dict[str, dict[str, Any]] = {
    "chat": {"messages": [ASK]},
    "completions": {"prompt": "Hi?"},
}
SHARED: dict[str, list[Any]] = {
    "store": [False],
    "metadata": [{}, {"session": "7"}],
    "service_tier": ["auto", "default"],
    "user": ["me"],
    "safety_identifier": ["me"],
    "prompt_cache_key": ["mine"],
    "prompt_cache_retention": ["in_memory"],
    "prompt_cache_options": [{}, {"mode": "implicit"}],
    "length_penalty": [1.0],
    "best_of": [1],
    "bad_words": [[]],
    "allowed_token_ids": [[]],
    "use_beam_search": [False],
    "prompt_logprobs": [0],
    "skip_special_tokens": [True],
    "spaces_between_special_tokens": [True],
    "include_stop_str_in_output": [False],
    "no_stop_trim": [False],
    "priority": [0],
    "truncate_prompt_tokens": [None],
    "guided_decoding_backend": ["auto", "guidance", "llguidance"],
    "guided_whitespace_pattern": [None],
    "cache_salt": [None],
}
OF_CHATS: dict[str, list[Any]] = {
    "tools": [[], None],
    "functions": [[]],
    "tool_choice": ["none", "auto"],
    "function_call": ["none", "auto"],
    "parallel_tool_calls": [True],
    "modalities": [["text"]],
    "audio": [None],
    "prediction": [None],
    "verbosity": ["medium"],
    "web_search_options": [None],
    "moderation": [None],
    "thinking": [{"type": "disabled"}, False],
    "reasoning": [{"effort": "none"}, {"enabled": False}],
    "reasoning_effort": ["none"],
    "thinking_budget": [0],
    "enable_thinking": [False],
    "separate_reasoning": [True],
    "include_reasoning": [True],
    "stream_reasoning": [True],
    "echo": [False],
    "add_generation_prompt": [True],
    "continue_final_message": [False],
    "add_special_tokens": [False],
    "chat_template": [None],
    "documents": [[]],
}
OF_COMPLETIONS: dict[str, list[Any]] = {
    "max_completion_tokens": [None],
    "suffix": [""],
    "add_special_tokens": [True],
}
READ = {
    "tools", "functions", "tool_choice", "parallel_tool_calls", "separate_reasoning",
    "add_generation_prompt", "continue_final_message",
}  # fmt: skip
"""Parameters of chats that are honoured: their other values ask for something."""
NEUTRAL: dict[Route, dict[str, list[Any]]] = {
    "chat": SHARED | OF_CHATS,
    "completions": SHARED | OF_COMPLETIONS,
}


def _read(route: Route, **given: Any) -> Prepared:
    job = Job(route=route, model="fake", info=INFO, max_tokens=512)
    return prepare(json.dumps(NEEDED[route] | given).encode(), job, CODEC)


def _refused(route: Route, **given: Any) -> ApiError:
    with pytest.raises(ApiError) as refused:
        _read(route, **given)
    return refused.value


def _schema(route: Route) -> Draft202012Validator:
    return Draft202012Validator(schema_of(KINDS[route]))


@pytest.mark.parametrize("route", NEUTRAL)
def test_values_that_ask_for_nothing_change_nothing(route: Route) -> None:
    plain = _read(route, seed=1)
    for name, values in NEUTRAL[route].items():
        for value in (*values, None):
            read = _read(route, seed=1, **{name: value})
            (submit,) = read.submits
            assert submit == msgspec.structs.replace(plain.submits[0], request=submit.request)
            assert (read.options, read.turn) == (plain.options, plain.turn)
            _schema(route).validate(NEEDED[route] | {name: value})


@pytest.mark.parametrize("route", NEUTRAL)
def test_other_values_are_refused_by_name_with_a_remedy(route: Route) -> None:
    hints = {"user", "safety_identifier", "prompt_cache_key", "metadata"}
    for name in NEUTRAL[route].keys() - hints - READ:
        for value in (7, "x", {"a": ["b"]}, [[]], 10**400):
            error = _refused(route, **{name: value})
            assert (error.status, error.code, error.param) == (400, "invalid_value", name)
            assert error.message.startswith(f"{name!r}: "), error.message
            assert "; " in error.message, error.message
            if (name, value) != ("best_of", 7):  # no schema says that it is n's
                assert not _schema(route).is_valid(NEEDED[route] | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_of", True),
        ("top_k", False),
        ("store", 0),
        ("user", "u" * 513),
        ("metadata", {"k": 1}),
        ("metadata", {"k": "v" * 513}),
        ("metadata", {str(i): "" for i in range(17)}),
        ("service_tier", "flex"),
        ("store", True),
    ],
)
def test_what_is_nearly_neutral_is_refused(name: str, value: Any) -> None:
    for route in NEUTRAL:
        error = _refused(route, **{name: value})
        assert error.param is not None
        assert error.param.partition("[")[0] == name


def test_every_documented_parameter_is_known() -> None:
    chat = chat_create_params.CompletionCreateParamsBase.__annotations__.keys()
    text = completion_create_params.CompletionCreateParamsBase.__annotations__.keys()
    assert chat <= set(KINDS["chat"].__struct_fields__)
    assert text <= set(KINDS["completions"].__struct_fields__)
    options = ChatCompletionStreamOptionsParam.__annotations__
    _read("chat", stream=True, stream_options=dict.fromkeys(options, False))


@pytest.mark.parametrize("route", NEUTRAL)
def test_a_salt_of_the_cache_is_refused_with_what_keeps_clients_apart(route: Route) -> None:
    error = _refused(route, cache_salt="mine")
    assert error.param == "cache_salt"
    assert "serve --disable-radix-cache" in error.message


WAYS_TO_THINK: list[tuple[dict[str, Any], str]] = [
    ({"thinking": {"type": "enabled"}}, "thinking"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
    ({"thinking": True}, "thinking"),
    ({"reasoning": {"effort": "low"}}, "reasoning"),
    ({"reasoning": {"enabled": True}}, "reasoning"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"enable_thinking": True}, "enable_thinking"),
    ({"thinking_budget": 512}, "thinking_budget"),
    (
        {"chat_template_kwargs": {"reasoning_effort": "low"}},
        "chat_template_kwargs.reasoning_effort",
    ),
    (
        {"chat_template_kwargs": {"thinking_budget": 512}},
        "chat_template_kwargs.thinking_budget",
    ),
]


@pytest.mark.parametrize(("given", "param"), WAYS_TO_THINK)
def test_every_usual_way_to_ask_for_thinking_says_how_it_is_asked_here(
    given: dict[str, Any], param: str
) -> None:
    error = _refused("chat", **given)
    assert (error.code, error.param) == ("invalid_value", param)
    assert 'use chat_template_kwargs: {"thinking": true}' in error.message


def test_a_way_to_ask_for_no_thinking_changes_nothing_in_the_template_either() -> None:
    plain = _read("chat", seed=1)
    for switch in (
        {"enable_thinking": False},
        {"reasoning_effort": "none"},
        {"thinking_budget": 0},
    ):
        read = _read("chat", seed=1, chat_template_kwargs=switch)
        assert read.submits[0].prompt == plain.submits[0].prompt
        assert _schema("chat").is_valid(NEEDED["chat"] | {"chat_template_kwargs": switch})


@pytest.mark.parametrize("ttl", [{}, {"ttl": "5m"}, {"ttl": "1h"}], ids=str)
def test_a_mark_for_a_cache_changes_no_prompt(ttl: dict[str, str]) -> None:
    mark = {"cache_control": {"type": "ephemeral", **ttl}}
    part = {"type": "text", "text": "Hi?"}
    plain = _read("chat", messages=[ASK | {"content": [part]}]).submits[0].prompt
    for marked in (ASK | {"content": [part | mark]}, ASK | {"content": [part]} | mark):
        assert _read("chat", messages=[marked]).submits[0].prompt == plain
    other = part | {"cache_control": {"type": "for ever"}}
    error = _refused("chat", messages=[ASK | {"content": [other]}])
    assert error.param == "messages[0].content[0].cache_control"


def test_two_names_that_agree_are_taken() -> None:
    assert _read("chat", max_tokens=3, max_completion_tokens=3).submits[0].max_tokens == 3
    both = ANSWER | {"reasoning": "I add.", "reasoning_content": "I add."}
    one = ANSWER | {"reasoning_content": "I add."}
    prompts = [_read("chat", messages=[ASK, each, ASK]).submits[0].prompt for each in (both, one)]
    assert prompts[0] == prompts[1]


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    message = ChatCompletionMessage(role="assistant", content="Hi.", annotations=[])
    sent_back = message.model_dump() | {"reasoning": None, "reasoning_content": None, "name": "x"}
    with_it = _read("chat", messages=[ASK, sent_back, ASK]).submits[0].prompt
    plain = {"role": "assistant", "content": "Hi."}
    assert with_it == _read("chat", messages=[ASK, plain, ASK]).submits[0].prompt


def test_a_streamed_call_can_be_sent_back_as_it_came() -> None:
    function = {"name": "f", "arguments": "{}"}
    call = {"index": 0, "id": "c", "type": "function", "function": function}
    result = {"role": "tool", "tool_call_id": "c", "content": "1", "name": "f"}
    history = [ASK, {"role": "assistant", "tool_calls": [call]}, result]
    as_object = call | {"function": function | {"arguments": {}}}
    same = [ASK, {"role": "assistant", "tool_calls": [as_object]}, result]
    prompts = [_read("chat", messages=each).submits[0].prompt for each in (history, same)]
    assert prompts[0] == prompts[1]


def test_what_openais_client_has_parsed_of_an_answer_is_not_read() -> None:
    function = {"name": "f", "arguments": '{"a": 1}'}
    said = {"role": "assistant", "content": "Hi.", "tool_calls": [{"function": function}]}
    parsed: dict[str, Any] = said | {"parsed": {"mood": [1]}}
    parsed["tool_calls"] = [{"function": function | {"parsed_arguments": {"a": 2}}}]
    result = {"role": "tool", "content": "1"}
    plain, sent = (_read("chat", messages=[ASK, turn, result]) for turn in (said, parsed))
    assert sent.submits[0].prompt == plain.submits[0].prompt


def test_tools_that_must_not_be_called_are_neither_rendered_nor_refused() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    plain = _read("chat").submits[0].prompt
    assert _read("chat", tools=tools, tool_choice="none").submits[0].prompt == plain
    assert _read("chat", functions=tools, function_call="none").submits[0].prompt == plain
    # Where they may be called the prompt has their text, which is longer than this context.
    assert _refused("chat", tools=tools, tool_choice="auto").code == "context_length_exceeded"
    assert _refused("chat", tools=tools).code == "context_length_exceeded"
    assert _refused("chat", tools={}, tool_choice="none").param == "tools"


@pytest.mark.parametrize(
    ("route", "given", "param", "words"),
    [
        ("completions", {"stop": ["x"] * 17}, "stop", "<= 16"),
        ("completions", {"stop": [1]}, "stop[0]", "`str`"),
        ("completions", {"stop": ["a", ""]}, "stop[1]", ">= 1"),
        ("completions", {"prompt": [1, "a"]}, "prompt[1]", "`int`"),
        ("completions", {"prompt": ["a", 1]}, "prompt[1]", "`str`"),
        ("completions", {"prompt": [[1], ["a"]]}, "prompt[1][0]", "`int`"),
        ("completions", {"prompt": [[1], "a"]}, "prompt[1]", "`array`"),
        ("completions", {"prompt": {"a": 1}}, "prompt", "a text, a list of token ids"),
        ("completions", {"prompt": ["a"] * 257}, "prompt", "<= 256"),
        ("completions", {"prompt": [[1]] * 257}, "prompt", "256"),
        ("completions", {"prompt": [[1] * 200] * 3}, "prompt", "512"),
        ("completions", {"prompt": ["a" * 200] * 3}, "prompt", "512 tokens together"),
        ("chat", {"messages": [ASK] * 2049}, "messages", "<= 2048"),
        (
            "chat",
            {"messages": [ASK, ASK | {"content": [{"type": "image_url"}]}]},
            "messages[1].content[0].type",
            "leave out images",
        ),
        (
            "chat",
            {"messages": [ASK | {"content": [{"type": "refusal", "refusal": "no"}]}]},
            "messages[0].content[0].type",
            "send its text as content",
        ),
        (
            "chat",
            {"messages": [ASK | {"content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "required",
        ),
        ("chat", {"messages": [ASK | {"refusal": "no"}]}, "messages[0].refusal", "as content"),
        (
            "chat",
            {"messages": [ASK | {"function_call": {}}]},
            "messages[0].function_call",
            "tool_calls",
        ),
        (
            "chat",
            {"chat_template_kwargs": {"thinking": True}, "reasoning_effort": "none"},
            "reasoning_effort",
            "opposite",
        ),
        *(
            ("chat", {name: value, "chat_template_kwargs": {"thinking": True}}, name, "opposite")
            for name, value in (
                ("thinking", {"type": "disabled"}),
                ("reasoning", {"effort": "none"}),
                ("enable_thinking", False),
                ("thinking_budget", 0),
            )
        ),
        (
            "chat",
            {"chat_template_kwargs": {"thinking": True, "enable_thinking": False}},
            "chat_template_kwargs.enable_thinking",
            "opposite",
        ),
        (
            "chat",
            {"messages": [ASK, ANSWER | {"reasoning": "a", "reasoning_content": "b"}, ASK]},
            "messages[1].reasoning",
            "reasoning_content is another name of it",
        ),
        (
            "chat",
            {"messages": [ASK, ANSWER | {"reasoning": "", "reasoning_content": "b"}, ASK]},
            "messages[1].reasoning",
            "says otherwise; give one",
        ),
        (
            "chat",
            {"messages": [ASK | {"cache_control": {"type": "ephemeral", "ttl": "2h"}}]},
            "messages[0].cache_control",
            "cached prefixes stay in memory while there is room; leave it out",
        ),
        (
            "completions",
            {"prompt_cache_retention": "24h"},
            "prompt_cache_retention",
            "cached prefixes stay in memory while there is room",
        ),
        ("completions", {"max_completion_tokens": 4}, "max_completion_tokens", "use max_tokens"),
        ("chat", {"stream_options": {}}, "stream_options", "stream=true"),
        (
            "chat",
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "not padded",
        ),
    ],
)
def test_an_error_names_the_place_and_the_bound(
    route: Route, given: dict[str, Any], param: str, words: str
) -> None:
    error = _refused(route, **given)
    assert (error.status, error.param) == (400, param), error.message
    assert words in error.message
