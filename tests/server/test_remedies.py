"""What a refusal tells a client to send or to change is there, in the interface that it asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_runtime import CODEC, EOS_ID, VOCAB

from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.messages import EngineInfo
from lostwax.server.formats.encoding_v32 import USER
from lostwax.server.formats.template_apart import tried_template
from lostwax.server.gateway.chat_settings import OF_CHECKPOINT, ChatSettings
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import KINDS, read_body
from lostwax.server.gateway.prepared import Job, Route
from lostwax.server.gateway.templated_chat import sampled_variables

INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=64,
    max_reqs=1,
    max_top_logprobs=20,
    eos_token_ids=(EOS_ID,),
    chat_encoding=CHAT_V32,
)
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
"""Reads no tools and no variable."""
ASK = {"role": "user", "content": "Hi?"}
SAID = {"role": "assistant", "content": "It i"}
LED = {"role": "system", "content": "Be brief."}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
FUNCTION = {"name": "add", "parameters": {"type": "object"}}
CALLS = [{"function": {"name": name, "arguments": {}}} for name in ("add", "now")]
TOOLS = [{"type": "function", "function": FUNCTION}]
THINKS = {"thinking": {"type": "enabled"}}
GOES_ON = {"continue_final_message": True, "chat_template_kwargs": {"thinking": True}}
UNTHOUGHT = "stands behind the last user's message while the model thinks"
CALLING = [
    ASK,
    SAID,
    {"type": "function_call", "call_id": "c", "name": 'a"b', "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "1"},
]
NEEDED: dict[Route, dict[str, Any]] = {
    "completions": {"prompt": [5]},
    "chat": {"messages": [ASK]},
    "responses": {"input": [ASK]},
    "messages": {"messages": [ASK], "max_tokens": 4},
    "generate": {"input_ids": [5]},
    "ollama": {"messages": [ASK]},
}
REFUSED: list[tuple[Route, dict[str, Any], str]] = [
    ("completions", {"max_tokens": 99}, "shorten the prompt, or lower max_tokens"),
    ("chat", {"max_tokens": 99}, "shorten the prompt, or lower max_tokens"),
    ("chat", {"max_completion_tokens": 99}, "shorten the prompt, or lower max_completion_tokens"),
    ("chat", {"messages": [ASK, SAID]}, "or send continue_final_message: true"),
    ("chat", {"messages": [ASK, LED]}, "end with a user's message"),
    ("chat", {"messages": [ASK, SAID], "tools": TOOLS, **GOES_ON}, f"messages[1] {UNTHOUGHT}"),
    ("chat", {"tools": [SEARCH]}, "only tools of type 'function' are known"),
    ("responses", {"max_output_tokens": 99}, "or lower max_output_tokens"),
    ("responses", {"input": [ASK, SAID]}, "end with a user's message or a tool's result"),
    ("responses", {"input": [ASK, LED]}, "end with a user's message"),
    ("responses", {"input": [ASK | {"role": "tool"}]}, "use system, developer, user or assistant"),
    ("responses", {"instructions": "i", "input": CALLING}, "input[1] has, as its tool call 1, 'a"),
    ("responses", {"reasoning": {"effort": "much"}}, "use none, minimal, low, medium, high, xhigh"),
    ("responses", {"tools": [SEARCH]}, "only tools of type 'function' are known"),
    ("messages", {"max_tokens": 99}, "shorten the prompt, or lower max_tokens"),
    ("messages", {"messages": [ASK, LED]}, "end with a user's message"),
    ("messages", {"system": "s", "messages": [ASK, SAID], **THINKS}, f"messages[1] {UNTHOUGHT}"),
    ("messages", {"messages": [LED, ASK, SAID], **THINKS}, f"messages[2] {UNTHOUGHT}"),
    ("messages", {"messages": [ASK | {"role": "tool"}]}, "use user, assistant or system"),
    ("messages", {"tools": [SEARCH]}, "has type 'custom' or no type"),
    ("messages", {"tool_choice": {"type": "required"}}, "use auto, any, tool or none"),
    ("messages", {"thinking": {"type": "on"}}, "use enabled, adaptive or disabled"),
    ("generate", {"sampling_params": {"max_new_tokens": 99}}, "lower sampling_params.max_new_tok"),
    ("ollama", {"options": {"num_predict": 99}}, "or lower options.num_predict"),
    ("ollama", {"messages": [ASK, LED]}, "end with a user's message"),
    ("ollama", {"messages": [ASK, SAID], "think": True}, f"messages[1] {UNTHOUGHT}"),
    ("ollama", {"messages": [ASK | {"role": "developer"}]}, "use system, user, assistant or tool"),
    ("ollama", {"think": "max"}, "use true, false, low, medium or high"),
    (
        "ollama",
        {
            "messages": [
                ASK,
                {"role": "assistant", "tool_calls": CALLS},
                {"role": "tool", "content": "3"},
                ASK,
            ]
        },
        "call 'messages[1].tool_calls[1]' has no result; add it",
    ),
]
TEMPLATED: list[tuple[Route, dict[str, Any], str]] = [
    ("chat", {"messages": [ASK, SAID], "continue_final_message": True}, "cannot go on with"),
    ("chat", {"messages": [ASK | {"content": USER}]}, "or send chat_template_kwargs:"),
    ("responses", {"input": [ASK | {"content": USER}]}, "or send chat_template_kwargs:"),
    ("responses", {"reasoning": {"effort": "high"}}, "'reasoning.effort': the server's chat"),
    ("messages", {"messages": [ASK, SAID]}, "'messages': a chat template opens a turn of its own"),
    ("messages", {"messages": [ASK | {"content": USER}]}, "of parts; leave it out"),
    ("messages", {"thinking": {"type": "enabled"}}, "'thinking': the server's chat template"),
    ("ollama", {"messages": [ASK, SAID]}, "'messages': a chat template opens a turn of its own"),
    ("ollama", {"messages": [ASK | {"content": USER}]}, "of parts; leave it out"),
    ("ollama", {"think": True}, "'think': the server's chat template"),
]


def _fields(route: str) -> set[str]:
    """The names of fields that a request has and may say something with."""
    return set(_properties(msgspec.json.schema(KINDS[route])))


def _properties(schema: Any) -> Iterator[str]:
    for each in schema if isinstance(schema, list) else schema.values():
        if isinstance(each, dict | list):
            yield from _properties(each)
    if isinstance(schema, dict):
        for name, value in schema.get("properties", {}).items():
            if value.get("enum") != [None]:
                yield name


EVERYWHERE = set[str]().union(*map(_fields, KINDS))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ChatSettings:
    path: Path = tmp_path_factory.mktemp("template") / "mine.jinja"
    path.write_text(TEMPLATE, encoding="utf-8")
    return ChatSettings(template=tried_template(path, sampled_variables()))


def require_refused(
    route: Route, given: dict[str, Any], said: str, chats: ChatSettings = OF_CHECKPOINT
) -> None:
    body = json.dumps(NEEDED[route] | given).encode()
    job = Job(route=route, model="fake", info=INFO, max_tokens=4096, chats=chats)
    with pytest.raises(ApiError) as found:
        read_body(body, job, CODEC)
    error = found.value
    assert (error.status, said in error.message) == (400, True), error.message
    own = _fields(route)
    named = set(re.findall(r"\w+_\w+|`\w+`|'\w+'(?=:)", error.message))
    told = {name.strip("`'") for name in named} & EVERYWHERE
    assert told <= own, f"{told - own} is no field of {route}: {error.message}"
    assert error.param is None or re.split(r"\W", error.param)[0] in own, error.param


@pytest.mark.parametrize(("route", "given", "said"), REFUSED, ids=str)
def test_a_remedy_is_one_of_the_interface(route: Route, given: dict[str, Any], said: str) -> None:
    require_refused(route, given, said)


@pytest.mark.parametrize(("route", "given", "said"), TEMPLATED, ids=str)
def test_the_same_with_a_template(
    route: Route, given: dict[str, Any], said: str, template: ChatSettings
) -> None:
    require_refused(route, given, said, template)


@pytest.mark.parametrize("route", ["chat", "ollama"])
def test_who_bounded_no_answer_is_told_to_shorten_the_prompt_alone(route: Route) -> None:
    body = json.dumps({"messages": [ASK | {"content": "x " * 99}]}).encode()
    with pytest.raises(ApiError, match=r"shorten the prompt$"):
        read_body(body, Job(route=route, model="fake", info=INFO, max_tokens=4096), CODEC)


def test_each_interface_has_refusals() -> None:
    assert {route for route, _, _ in REFUSED} == KINDS.keys()


def test_a_field_that_an_interface_refuses_is_none_to_be_told_of() -> None:
    assert "continue_final_message" in _fields("chat") - _fields("responses")
    assert "response_format" not in _fields("responses")
    assert "max_completion_tokens" in EVERYWHERE
