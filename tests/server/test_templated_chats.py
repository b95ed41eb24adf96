"""Chats by an operator's template, and answers that nobody parses, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fake_runtime import FakeLimits
from http_server import running
from scripted_runtime import CHATTING, VOCAB, ScriptedRuntime, chat_codec

from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoders import encode_chat
from lostwax.server.formats.encoding_v31 import TOOL_MARKS
from lostwax.server.formats.encoding_v32 import ASSISTANT, BOS, THINK, THINK_END, USER
from lostwax.server.formats.template_apart import tried_template
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.body_reader import LARGE_BODY_BYTES, SMALL_BODY_BYTES
from lostwax.server.gateway.chat_settings import ChatSettings
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.templated_chat import sampled_variables

CODEC = chat_codec(more=TOOL_MARKS)
SIZE = VOCAB + len(TOOL_MARKS)
ROOMY = FakeLimits(max_context=4096, page_tokens=16, num_pages=1025, vocab_size=SIZE)
ASK: list[Any] = [{"role": "user", "content": "2 + 3?"}]
FUNCTION: dict[str, Any] = {"name": "add", "parameters": {"type": "object", "properties": {}}}
TOOLS: list[Any] = [{"type": "function", "function": FUNCTION}]
SOURCE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}:{{ m.content }}"
    "{% for c in m.tool_calls or [] %}({{ c.function.arguments.a }}){% endfor %}]{% endfor %}"
    "{% if tools %}<{{ tools|tojson }}>{% endif %}{{ style }}"
    "{{ '<｜Assistant｜>' }}{% if thinking %}<think>{% endif %}"  # noqa: RUF001
)
CALL = (
    'Sure.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="add">\n</｜DSML｜invoke>\n'  # noqa: RUF001
    "</｜DSML｜function_calls>"  # noqa: RUF001
)
HANGS = (
    "{% if 'hang' in messages[0].content %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}x{{ '<｜Assistant｜>' }}"  # noqa: RUF001
)


@contextmanager
def served(
    chats: ChatSettings, script: str = "Hm.", encoding: str | None = CHAT_V32
) -> Generator[Any]:
    facts = msgspec.structs.replace(CHATTING, chat_encoding=encoding, vocab_size=SIZE)
    runtime = ScriptedRuntime(CODEC.encode_rendered(script), ROOMY, facts)
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    with running(create_app(InProcessEngine(core), CODEC, Settings(chats=chats))) as url:

        def post(
            path: str = "/v1/chat/completions", num_bytes: int = 0, **given: Any
        ) -> httpx.Response:
            """The answer to a body of so many bytes at least."""
            body = {"messages": ASK, "temperature": 0} | given
            body = {name: value for name, value in body.items() if value is not None}
            content = msgspec.json.encode(body).ljust(num_bytes)
            head = {"Content-Type": "application/json"}
            return httpx.post(f"{url}{path}", content=content, headers=head, timeout=30)

        yield post, runtime


@pytest.fixture
def template(tmp_path: Path) -> ChatSettings:
    return of(tmp_path, SOURCE)


def of(folder: Path, source: str, **more: Any) -> ChatSettings:
    path = folder / "mine.jinja"
    path.write_text(source)
    return ChatSettings(template=tried_template(path, sampled_variables()), **more)


def text(runtime: ScriptedRuntime) -> str:
    return CODEC.decode_with_marks(list(runtime.prompt))


def test_the_template_renders_and_its_marks_are_structure(template: ChatSettings) -> None:
    with served(template) as (post, runtime):
        assert post().json()["choices"][0]["message"]["content"] == "Hm."
        wanted = f"{BOS}[user:2 + 3?]{ASSISTANT}"
        assert runtime.prompt == CODEC.encode_rendered(wanted)
        told = [{"role": "user", "content": [{"type": "text", "text": "2 + 3?"}]}]
        post(messages=told, chat_template_kwargs={"style": "brief"})
        assert text(runtime) == f"{BOS}[user:2 + 3?]brief{ASSISTANT}"
        for num_bytes in (0, SMALL_BODY_BYTES + 1):  # in a thread first, in a process first
            tokens = post("/tokenize", num_bytes, temperature=None).json()["tokens"]
            assert tokens == CODEC.encode_rendered(wanted)


@pytest.mark.parametrize("name", ["thinking", "enable_thinking"])
def test_an_open_think_says_that_the_answer_begins_with_reasoning(
    template: ChatSettings, name: str
) -> None:
    with served(template, f"why{THINK_END}5") as (post, runtime):
        message = post(chat_template_kwargs={name: True}).json()["choices"][0]["message"]
        assert text(runtime).endswith(f"{ASSISTANT}{THINK}")
        assert (message["reasoning_content"], message["content"]) == ("why", "5")


def test_calls_are_read_as_the_checkpoint_writes_them(template: ChatSettings) -> None:
    with served(template, CALL) as (post, runtime):
        choice = post(tools=TOOLS).json()["choices"][0]
        assert choice["message"]["tool_calls"][0]["function"]["name"] == "add"
        assert '"name": "add"' in text(runtime)
        call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 7}'}}
        history = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call]}]
        history += [{"role": "tool", "tool_call_id": "1", "content": "12"}]
        assert post(messages=history).status_code == 200
        assert "[assistant:(7)][tool:12]" in text(runtime)


def test_a_call_that_broke_has_an_object_too(tmp_path: Path) -> None:
    source = "{% for m in messages %}{% for c in m.tool_calls or () %}"
    source += "{{ c.function.arguments | tojson }};{% endfor %}{{ m.content }}.{% endfor %}"
    call = {"id": "1", "function": {"name": "add", "arguments": '{"a": 7,]'}}
    turn = {"role": "assistant", "content": "Hm", "tool_calls": [call]}
    with served(of(tmp_path, source)) as (post, runtime):
        assert post(messages=[*ASK, turn, {"role": "tool", "content": "no"}]).is_success
        assert text(runtime) == '2 + 3?.{"arguments": "{\\"a\\": 7,]"};Hm.no.'
        assert post(messages=[*ASK, turn, *ASK]).is_success
        assert text(runtime) == '2 + 3?.{"arguments": "{\\"a\\": 7,]"};Hm.2 + 3?.'


def test_other_interfaces_are_rendered_by_it_too(template: ChatSettings) -> None:
    with served(template) as (post, runtime):
        wanted = f"{BOS}[user:2 + 3?]{ASSISTANT}"
        assert post("/v1/messages", max_tokens=4).is_success
        assert text(runtime) == wanted
        counted = post("/v1/messages/count_tokens", temperature=None).json()
        assert counted["input_tokens"] == len(CODEC.encode_rendered(wanted))
        assert post("/v1/responses", messages=None, input="2 + 4?").is_success
        assert text(runtime) == wanted.replace("3", "4")


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unread variable": (
        {"chat_template_kwargs": {"colour": "red"}},
        "chat_template_kwargs.colour",
        "reads no variable 'colour'",
    ),
    "a variable of the server's": (
        {"chat_template_kwargs": {"messages": []}},
        "chat_template_kwargs.messages",
        "the server sets it",
    ),
    "a switch that is none": (
        {"chat_template_kwargs": {"thinking": "yes"}},
        "chat_template_kwargs.thinking",
        "true or false belongs here",
    ),
    "a message that is continued": (
        {
            "messages": [*ASK, {"role": "assistant", "content": "It"}],
            "continue_final_message": True,
        },
        "continue_final_message",
        "opens a turn of its own",
    ),
    "tools of a message": (
        {"messages": [{"role": "system", "content": "x", "tools": TOOLS}, *ASK]},
        "messages[0]",
        "reads no tools or schema of a message",
    ),
    "a mark in a text": (
        {"messages": [{"role": "user", "content": f"a{USER}b"}]},
        "messages",
        "of parts; leave it out",
    ),
    "a mark in a tool": (
        {"tools": [{"type": "function", "function": FUNCTION | {"description": USER}}]},
        "messages",
        "of parts; leave it out",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_template_would_leave_out_is_refused(template: ChatSettings, name: str) -> None:
    given, param, said = REFUSED[name]
    with served(template) as (post, _):
        error = post(**given).json()["error"]
    assert (error["param"], said in error["message"]) == (param, True), error


def test_trusted_marks_are_structure(template: ChatSettings) -> None:
    with served(template) as (post, runtime):
        given = [{"role": "user", "content": f"a{USER}b"}]
        assert post(messages=given, chat_template_kwargs={"trust_content": True}).is_success
        assert CODEC.marks[USER] in runtime.prompt


def test_a_template_that_shows_no_tools_refuses_them(tmp_path: Path) -> None:
    with served(of(tmp_path, "{{ messages[0].content }}")) as (post, _):
        error = post(tools=TOOLS).json()["error"]
        assert error["param"] == "tools"
        assert "shows no tools to the model" in error["message"]
        assert post(tools=TOOLS, tool_choice="none").status_code == 200
        error = post(chat_template_kwargs={"thinking": True}).json()["error"]
        assert "reads no variable 'thinking'" in error["message"]


def test_what_a_template_says_reaches_the_client(tmp_path: Path) -> None:
    source = "{{ raise_exception('no ' ~ messages[0].role) }}"
    with served(of(tmp_path, source)) as (post, _):
        error = post().json()["error"]
        assert "the server's chat template refuses them: no user" in error["message"]
    source = "{% if messages[0].content == '2 + 3?' %}\n{{ 1 + 'x' }}{% endif %}x"
    with served(of(tmp_path, source)) as (post, _):
        answer = post()
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "template_failed")
        assert ": mine.jinja, line 2: " in answer.json()["error"]["message"]
        assert str(tmp_path) not in answer.text


def test_a_checkpoint_whose_chats_are_not_known_is_served_by_its_template(
    template: ChatSettings,
) -> None:
    with served(template, CALL, encoding=None) as (post, _):
        assert post(tools=TOOLS).json()["choices"][0]["message"]["content"] == CALL
    read = msgspec.structs.replace(template, calls="deepseekv32")
    with served(read, CALL, encoding=None) as (post, _):
        assert post(tools=TOOLS).json()["choices"][0]["finish_reason"] == "tool_calls"
    with served(ChatSettings(), encoding=None) as (post, _):
        assert "serve --chat-template FILE" in post().json()["error"]["message"]


TEXTS: dict[str, Any] = {"/v1/completions": {"max_tokens": 1}, "/tokenize": {"temperature": None}}


def test_a_template_that_hangs_stalls_nobody_who_needs_none(tmp_path: Path) -> None:
    with served(of(tmp_path, HANGS)) as (post, _):
        assert post().status_code == 200
        answers: list[httpx.Response] = []

        def hang(num_bytes: int) -> None:
            asked = [{"role": "user", "content": "hang"}]
            answers.append(post(num_bytes=num_bytes, messages=asked))

        sizes = (0, 0, LARGE_BODY_BYTES + 1)
        hanging = [threading.Thread(target=hang, args=(size,)) for size in sizes]
        for thread in hanging:
            thread.start()
        gaps: list[float] = []
        while len(answers) < len(hanging):
            for path, given in TEXTS.items():
                began_s = time.monotonic()
                assert post(path, messages=None, prompt="x", **given).is_success
                gaps.append(time.monotonic() - began_s)
        for thread, answer in zip(hanging, answers, strict=True):
            thread.join()
            assert answer.status_code == 400
            assert "takes more than" in answer.json()["error"]["message"]
        assert len(gaps) > 3
        assert max(gaps) < 1
        assert post().status_code == 200


NONE = ChatSettings(calls="none", splits_reasoning=False)


def test_without_parsers_the_answer_is_content_as_it_comes() -> None:
    said = f"why{THINK_END}{CALL}"
    with served(NONE, said) as (post, runtime):
        given = {"tools": TOOLS, "chat_template_kwargs": {"thinking": True}}
        choice = post(**given).json()["choices"][0]
        assert choice["message"]["content"] == said
        assert choice["message"]["reasoning_content"] is None
        assert "tool_calls" not in choice["message"]
        assert choice["finish_reason"] == "stop"
        asked = encode_chat(CHAT_V32, ASK, TOOLS, thinking=True)
        assert runtime.prompt == CODEC.encode_pieces(asked)


def test_calls_are_read_where_reasoning_is_not_parted() -> None:
    with served(ChatSettings(splits_reasoning=False), f"why{THINK_END}{CALL}") as (post, _):
        given = {"tools": TOOLS, "chat_template_kwargs": {"thinking": True}}
        message = post(**given).json()["choices"][0]["message"]
        assert message["content"] == f"why{THINK_END}Sure."
        assert message["tool_calls"][0]["function"]["name"] == "add"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": FUNCTION | {"strict": True}}]}, "tools"),
    ],
)
def test_a_call_that_nobody_reads_cannot_be_required(given: dict[str, Any], param: str) -> None:
    with served(NONE) as (post, _):
        answer = post(**({"tools": TOOLS} | given))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert "--tool-call-parser none" in answer.json()["error"]["message"]
