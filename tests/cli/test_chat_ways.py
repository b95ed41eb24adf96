"""One way from a request to its prompt: the server's and the command line's are the same text."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import lostwax, one_sentence
from scripted_runtime import EOS_ID, VOCAB, chat_codec

from lostwax.ir.contract.model import CHAT_V31, CHAT_V32
from lostwax.server.engine.messages import EngineInfo
from lostwax.server.formats.encoding_v31 import TOOL_MARKS
from lostwax.server.formats.template_apart import tried_template
from lostwax.server.gateway.chat_settings import OF_CHECKPOINT, ChatSettings
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import prepare
from lostwax.server.gateway.prepared import Job
from lostwax.server.gateway.templated_chat import sampled_variables

Capture = pytest.CaptureFixture[str]
CODEC = chat_codec(more=TOOL_MARKS)
ASK: dict[str, Any] = {"role": "user", "content": "hi"}
FUNCTION: dict[str, Any] = {
    "strict": False,
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    "name": "f",
    "description": "Does f.",
}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "ü"}'}}
CALLED = [
    ASK,
    {"role": "assistant", "content": None, "reasoning": "so", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "12"},
]
MARKED = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
OFFERING = [{"role": "system", "content": "Be terse.", "tools": [TOOL]}, ASK]
BODIES: dict[str, dict[str, Any]] = {
    "plain": {"messages": [ASK]},
    "thinking": {"messages": [ASK], "chat_template_kwargs": {"thinking": True}},
    "enable_thinking": {"messages": [ASK], "chat_template_kwargs": {"enable_thinking": True}},
    "not thinking": {"messages": [ASK], "chat_template_kwargs": {"enable_thinking": False}},
    "tools": {"messages": [ASK], "tools": [TOOL]},
    "auto": {"messages": [ASK], "tools": [TOOL], "tool_choice": "auto"},
    "none": {"messages": [ASK], "tools": [TOOL], "tool_choice": "none"},
    "required": {"messages": [ASK], "tools": [TOOL], "tool_choice": "required"},
    "system's tools": {"messages": OFFERING},
    "system's tools and the request's": {
        "messages": OFFERING,
        "tools": [{"type": "function", "function": {"name": "g"}}],
    },
    "no tools of the system's": {"messages": OFFERING, "tool_choice": "none"},
    "developer's tools and schema": {
        "messages": [
            {
                "role": "developer",
                "content": "Do.",
                "tools": [TOOL],
                "response_format": {"type": "object"},
            }
        ]
    },
    "cache_control": {"messages": [{"role": "user", "content": [MARKED]}]},
    "cache_control of a message": {"messages": [ASK | {"cache_control": {"type": "ephemeral"}}]},
    "a round of tools": {
        "messages": CALLED,
        "tools": [TOOL],
        "chat_template_kwargs": {"thinking": True},
    },
    "continued": {
        "messages": [ASK, {"role": "assistant", "content": "It"}],
        "continue_final_message": True,
    },
    "a schema of the request": {"messages": [ASK], "response_format": {"type": "json_object"}},
    "marks, trusted": {
        "messages": [{"role": "user", "content": "a</think>b"}],
        "chat_template_kwargs": {"trust_content": True},
    },
    "sampling": {"messages": [ASK], "model": "fake", "temperature": 0.5, "max_tokens": 3},
}
ONLY_V32 = ("system's tools", "developer's")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}:{{ m.content }}{{ m.tool_calls }}]"
    "{% endfor %}{{ tools }}{{ thinking }}{{ enable_thinking }}"
)


def job(encoding: str, chats: ChatSettings = OF_CHECKPOINT) -> Job:
    info = EngineInfo(
        model="fake",
        vocab_size=VOCAB + len(TOOL_MARKS),
        max_context=4096,
        max_reqs=1,
        max_top_logprobs=20,
        eos_token_ids=(EOS_ID,),
        chat_encoding=encoding,
    )
    return Job(route="chat", model="fake", info=info, max_tokens=4096, chats=chats)


def served(body: dict[str, Any], how: Job) -> tuple[str, str]:
    """The prompt of the gateway's, as text, or what refuses the request."""
    try:
        prompt = prepare(json.dumps(body).encode(), how, CODEC).submits[0].prompt
    except ApiError as error:
        return "", error.message
    return CODEC.decode_with_marks(list(prompt)), ""


def printed(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, body: object, *words: object
) -> tuple[int, str, str]:
    content = json.dumps(body).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return lostwax(capsys, "chat", "encode", "--json", *words)


@pytest.mark.parametrize(
    ("encoding", "format"), [(CHAT_V32, "deepseekv32"), (CHAT_V31, "deepseekv31")]
)
@pytest.mark.parametrize("name", BODIES)
def test_a_request_has_one_prompt(
    name: str, encoding: str, format: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one reason why it has none."""
    body = BODIES[name]
    prompt, why = served(body, job(encoding))
    assert bool(why) == (format == "deepseekv31" and name.startswith(ONLY_V32)), why
    require_same(prompt, why, printed(capsys, monkeypatch, body, "--format", format))


def require_same(prompt: str, why: str, found: tuple[int, str, str]) -> None:
    status, out, err = found
    if why:
        assert (status, out) == (1, "")
        assert why in one_sentence(err)
    else:
        assert (status, err) == (0, "")
        assert json.loads(out)["prompt"] == prompt


@pytest.mark.parametrize("name", BODIES)
def test_a_template_gives_one_prompt(
    name: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(TEMPLATE)
    chats = ChatSettings(template=tried_template(path, sampled_variables()), calls="deepseekv32")
    body = BODIES[name]
    prompt, why = served(body, job(CHAT_V32, chats))
    assert bool(why) == (name == "continued" or name.startswith(ONLY_V32)), why
    require_same(prompt, why, printed(capsys, monkeypatch, body, "--chat-template", path))


WRONG: list[Any] = [
    {"messages": [ASK], "colour": 1},
    {"messages": [ASK | {"tools": [TOOL]}]},
    {"messages": [{"role": "judge", "content": "x"}]},
    {"messages": [ASK], "chat_template_kwargs": {"x": 1}},
    {"messages": [ASK], "chat_template_kwargs": {"thinking": True, "enable_thinking": False}},
    {"messages": [ASK], "tools": [{"name": "f"}]},
    {"messages": [ASK], "tool_choice": "required"},
    {"messages": [ASK], "tools": [TOOL, TOOL]},
    {"messages": OFFERING, "tools": [TOOL]},
    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    {"messages": [{"role": "system", "content": "x", "response_format": 5}, ASK]},
    {"messages": [ASK], "functions": [{"name": "f"}]},
]


@pytest.mark.parametrize("body", WRONG)
def test_a_request_is_refused_in_the_same_words(
    body: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, why = served(body, job(CHAT_V32))
    assert (prompt, bool(why)) == ("", True)
    require_same(prompt, why, printed(capsys, monkeypatch, body))


def test_a_list_is_a_requests_messages(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    of_list = printed(capsys, monkeypatch, CALLED, "--thinking")
    thinking = {"chat_template_kwargs": {"thinking": True}}
    assert of_list == printed(capsys, monkeypatch, {"messages": CALLED} | thinking)


def test_a_chat_that_has_ended_has_a_prompt_here(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server would not know what to write."""
    ended = [ASK, {"role": "assistant", "content": "Ho."}]
    status, out, _ = printed(capsys, monkeypatch, ended)
    assert (status, json.loads(out)["prompt"].endswith("Ho.<｜end▁of▁sentence｜>")) == (0, True)  # noqa: RUF001
    assert "leaves the model no turn" in served({"messages": ended}, job(CHAT_V32))[1]
