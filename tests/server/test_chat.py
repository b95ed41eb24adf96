"""`/v1/chat/completions` over real HTTP, by the openai client, with answers written beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import openai
import pytest
from http_server import running
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from scripted_runtime import CHATTING, CODEC, LIMITS, ScriptedRuntime, chat_codec, spelt
from scripted_server import ScriptedServer

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoding_v32 import EOS, THINK_END, USER, encode_messages
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import Codec, IdCodec

ASK: list[Any] = [{"role": "user", "content": "Hi?"}]
THINKING = {"chat_template_kwargs": {"thinking": True}}


class Server(ScriptedServer):
    """Asks by this interface."""

    def post(self, **given: Any) -> httpx.Response:
        body = {"messages": ASK, "temperature": 0} | given
        return self.send("/v1/chat/completions", body)

    def ask(self, **given: Any) -> ChatCompletion:
        answer = self.post(**given)
        assert answer.status_code == 200, answer.text
        return ChatCompletion.model_validate(answer.json(), strict=True)

    def stream(self, **given: Any) -> list[ChatCompletionChunk]:
        answer = self.post(stream=True, **given)
        lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        assert lines[-1] == "[DONE]", answer.text
        return [ChatCompletionChunk.model_validate_json(line) for line in lines[:-1]]


def _serve(runtime: ScriptedRuntime, codec: Codec) -> Iterator[Server]:
    # The scripted runtime tells of whole prompts.
    core = EngineCore(runtime, EngineOptions(prefix_cache=False))
    app = create_app(InProcessEngine(core), codec, Settings())
    with running(app) as url:
        yield Server(runtime, url)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from _serve(ScriptedRuntime(), CODEC)


def _said(chunks: list[ChatCompletionChunk], name: str) -> str:
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    return "".join(getattr(delta, name, None) or "" for delta in deltas)


def _message(answer: ChatCompletion) -> tuple[str | None, str | None]:
    """Content and reasoning, which goes under two names."""
    message: Any = answer.choices[0].message
    assert message.reasoning == message.reasoning_content
    return message.content, message.reasoning_content


def _num_reasoning(answer: ChatCompletion) -> int | None:
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    return answer.usage.completion_tokens_details.reasoning_tokens


def test_an_answer_by_the_client(server: Server) -> None:
    server.says("Hello, wörld!")
    answer = server.client.chat.completions.create(model="fake", messages=ASK, temperature=0)
    assert server.runtime.prompt == CODEC.encode_rendered(encode_messages(ASK, "chat"))
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello, wörld!")
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    assert getattr(choice.message, "reasoning_content", "") is None
    assert answer.usage is not None
    num_prompt, num_answer = len(server.runtime.prompt), len("Hello, wörld!".encode()) + 1
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (num_prompt, num_answer)
    assert _num_reasoning(answer) == 0


@pytest.mark.parametrize("with_usage", [False, True])
def test_a_stream_gives_role_then_text_then_one_finish(server: Server, with_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    chunks = server.says("Hello, wörld!").stream(**options)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    first = chunks[0].choices[0]
    assert (first.delta.role, first.delta.content, first.finish_reason) == ("assistant", "", None)
    parts = [chunk for chunk in chunks if chunk.choices]
    assert not any(part.choices[0].delta.role for part in parts[1:])
    assert _said(parts, "content") == "Hello, wörld!"
    assert [p.choices[0].finish_reason for p in parts if p.choices[0].finish_reason] == ["stop"]
    assert parts[-1].choices[0].finish_reason == "stop"
    assert len(parts) == len(chunks) - with_usage
    if with_usage:
        assert chunks[-1].usage == server.ask().usage


@pytest.mark.parametrize("mark", ["as one token", "spelt"])
def test_reasoning_is_apart_from_content(server: Server, mark: str) -> None:
    tokens = CODEC.encode_rendered(THINK_END) if mark == "as one token" else spelt(THINK_END)
    server.runtime.script = spelt("1 < 2, so") + tokens + spelt("Yes. </think>")
    answer = server.ask(**THINKING)
    assert CODEC.encode_rendered(encode_messages(ASK, "thinking")) == server.runtime.prompt
    assert _message(answer) == ("Yes. </think>", "1 < 2, so")
    assert _num_reasoning(answer) == 9 + len(tokens)
    chunks = server.stream(**THINKING)
    assert _said(chunks, "content") == "Yes. </think>"
    assert _said(chunks, "reasoning_content") == _said(chunks, "reasoning") == "1 < 2, so"
    sides = ["reasoning" if _said([chunk], "reasoning") else "content" for chunk in chunks[1:-1]]
    assert sides == sorted(sides, reverse=True), "content never precedes reasoning"


def test_an_answer_cut_inside_reasoning_has_no_content(server: Server) -> None:
    server.says("I think and th" + THINK_END + "no")
    answer = server.ask(max_tokens=9, **THINKING)
    assert _message(answer) == (None, "I think a")
    assert answer.choices[0].finish_reason == "length"
    assert _num_reasoning(answer) == 9
    chunks = server.stream(max_completion_tokens=9, **THINKING)
    assert _said(chunks, "reasoning_content") == "I think a"
    assert _said(chunks, "content") == ""
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_held_back_start_of_a_mark_is_shown_at_the_end(server: Server) -> None:
    server.runtime.script = spelt("so </thi")
    assert _message(server.ask(**THINKING)) == (None, "so </thi")
    assert _said(server.stream(**THINKING), "reasoning_content") == "so </thi"
    server.runtime.script = spelt("<thi")
    assert server.ask().choices[0].message.content == "<thi"


def test_a_stop_string_holds_in_reasoning_and_in_content(server: Server) -> None:
    server.says("one two three</think>four five")
    answer = server.ask(stop="o th", **THINKING)
    assert _message(answer) == (None, "one tw")
    assert answer.choices[0].finish_reason == "stop"
    assert _message(server.ask(stop=["never", "ur f"], **THINKING)) == ("fo", "one two three")
    chunks = server.stream(stop="o th", **THINKING)
    assert _said(chunks, "reasoning_content") == "one tw"
    assert [c.choices[0].finish_reason for c in chunks].count("stop") == 1


def test_in_chat_mode_a_closing_mark_is_text(server: Server) -> None:
    server.says("The mark </think> closes.")
    assert server.ask().choices[0].message.content == "The mark </think> closes."
    assert _said(server.stream(), "content") == "The mark </think> closes."


def test_a_repeated_opening_mark_is_left_out_and_opens_reasoning(server: Server) -> None:
    server.says("<think>so</think>yes <think>")
    for given in ({}, THINKING):
        assert _message(server.ask(**given)) == ("yes <think>", "so")


def test_the_turn_ends_at_the_end_mark_and_at_the_next_turn(server: Server) -> None:
    for mark in (EOS, USER):
        (choice,) = server.says(f"Done.{mark}What else?").ask().choices
        assert (choice.message.content, choice.finish_reason) == ("Done.", "stop")
    (choice,) = server.says(f"a<fim>b{EOS}c{USER}d").ask(ignore_eos=True, max_tokens=7).choices
    assert (choice.message.content, choice.finish_reason) == ("abcd", "length")


def test_logprobs_tell_of_every_token_with_its_bytes(server: Server) -> None:
    server.says("é!")
    given = {"logprobs": True, "top_logprobs": 2}
    logprobs = server.ask(**given).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [t.bytes for t in logprobs.content] == [[0xC3], [0xA9], [0x21], list(EOS.encode())]
    assert logprobs.content[2].token == "!"
    assert {t.logprob for t in logprobs.content} == {-0.25}
    assert [len(t.top_logprobs) for t in logprobs.content] == [2, 2, 2, 2]
    assert logprobs.content[2].top_logprobs[1].logprob == -1.25
    streamed = [c.choices[0].logprobs for c in server.stream(**given)]
    assert [t for part in streamed if part for t in part.content or ()] == logprobs.content
    alone = server.ask(logprobs=True).choices[0].logprobs
    assert alone is not None
    assert [t.top_logprobs for t in alone.content or ()] == [[]] * 4


def test_without_a_bound_the_answer_may_fill_the_context(server: Server) -> None:
    server.runtime.script = spelt("x" * LIMITS.max_context)
    answer = server.ask()
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens == LIMITS.max_context


def test_the_whole_history_reaches_the_model(server: Server) -> None:
    server.says("why</think>Sure.")
    kwargs: Any = {"model": "fake", "extra_body": THINKING}
    first = server.client.chat.completions.create(messages=ASK, **kwargs).choices[0].message
    history: list[Any] = [
        {"role": "system", "content": "Be terse."},
        *ASK,
        first,
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("Wh", "y?")]},
    ]
    server.client.chat.completions.create(messages=history, **kwargs)
    assert server.runtime.prompt == CODEC.encode_rendered(
        "<｜begin▁of▁sentence｜>Be terse.<｜User｜>Hi?<｜Assistant｜></think>Sure."  # noqa: RUF001
        "<｜end▁of▁sentence｜><｜User｜>Why?<｜Assistant｜><think>"  # noqa: RUF001
    )


def test_reasoning_under_either_name_and_tool_results_are_rendered(server: Server) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "5"}
    for name in ("reasoning_content", "reasoning"):
        called = {"role": "assistant", "content": None, name: "use add", "tool_calls": [call]}
        server.says("Five.").ask(messages=[*ASK, called, result], **THINKING)
        rendered = encode_messages(
            [*ASK, called | {"reasoning_content": "use add"}, result], "thinking"
        )
        assert "use add</think>" in rendered
        assert server.runtime.prompt == CODEC.encode_rendered(rendered)


CALL = {"function": {"name": "f"}}


def _calling(arguments: str) -> dict[str, Any]:
    call = {"function": {"name": "f", "arguments": arguments}}
    return {"messages": [*ASK, {"role": "assistant", "tool_calls": [call]}, {"role": "tool"}]}


REFUSED: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no messages": ({"messages": []}, "messages", "length >= 1"),
    "messages left out": ({"messages": None}, "messages", "is required"),
    "a strange role": ({"messages": [{"role": "judge"}]}, "messages[0].role", "or tool"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"image_url": {}, "type": "image_url"}]}]},
        "messages[0].content[0].type",
        "'image_url'; only parts of type 'text' are read",
    ),
    "a weight": ({"messages": [ASK[0] | {"weight": 1}]}, "messages[0].weight", "remove it"),
    "a user's reasoning": (
        {"messages": [ASK[0] | {"reasoning": "x"}]},
        "messages[0].reasoning",
        "a user message has no reasoning",
    ),
    "an assistant last": (
        {"messages": [*ASK, {"role": "assistant", "content": "x"}]},
        "messages",
        "leaves the model no turn",
    ),
    "a silent thinker": (
        {"messages": [*ASK, {"role": "assistant"}, {"role": "tool"}], **THINKING},
        "messages",
        "neither",
    ),
    "a missing result": (
        {
            "messages": [
                *ASK,
                {"role": "assistant", "tool_calls": [CALL] * 2},
                {"role": "tool", "content": "1"},
            ]
        },
        "messages",
        "messages[1] has fewer results than calls behind it, 1 of 2; add a result each",
    ),
    "a missing result further up": (
        {
            "messages": [
                *ASK,
                {"role": "assistant", "tool_calls": [CALL] * 3},
                *[{"role": "tool", "content": "1"}] * 2,
                *ASK,
            ]
        },
        "messages",
        "messages[1] has fewer results than calls behind it, 2 of 3",
    ),
    "arguments too deep to be read": (_calling('{"a":' * 100000), "messages", "shorten them"),
    "results in another order": (
        {
            "messages": [
                *ASK,
                {"role": "assistant", "tool_calls": [{"id": i, **CALL} for i in ("a", "b")]},
                *({"role": "tool", "tool_call_id": i, "content": "1"} for i in ("b", "a")),
            ]
        },
        "messages",
        "messages[2] answers call 'b' in the place of 'a'",
    ),
    "a tool choice without tools": ({"tool_choice": "required"}, "tool_choice", "give tools"),
    "a format": ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
    "audio": ({"audio": {}}, "audio", "text only"),
    "an effort": ({"reasoning_effort": "low"}, "reasoning_effort", "chat_template_kwargs"),
    "a strange switch": (
        {"chat_template_kwargs": {"thinking_budget": 5}},
        "chat_template_kwargs.thinking_budget",
        'use chat_template_kwargs: {"thinking": true}',
    ),
    "a switch of text": (
        {"chat_template_kwargs": {"thinking": "yes"}},
        "chat_template_kwargs.thinking",
        "chat_template_kwargs.thinking",
    ),
    "too many answers": ({"n": 13}, "n", "<= 12"),
    "the best": ({"best_of": 2}, "best_of", "ask for n answers"),
    "an empty nucleus": ({"top_p": 0}, "top_p", "> 0.0"),
    "more than all": ({"top_p": 1.1}, "top_p", "<= 1.0"),
    "an unknown field": ({"max_len": 1}, "max_len", "remove it"),
    "no tokens": ({"max_tokens": 0}, "max_tokens", ">= 1"),
    "two bounds": ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "another name"),
    "alternatives alone": ({"top_logprobs": 3}, "top_logprobs", "logprobs=true"),
    "too many alternatives": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
    "a stream of text": ({"stream": "yes"}, "stream", "bool"),
    "an endless stop": ({"stop": ["x", "y" * 300]}, "stop[1]", "length <= 256"),
    "too long an answer": ({"max_tokens": 600}, "messages", "maximum context length is 512"),
    "too long a prompt": (
        {"messages": [{"role": "user", "content": "x" * 600}]},
        "messages",
        "shorten the prompt",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_400_and_says_what_to_do(server: Server, name: str) -> None:
    given, param, words = REFUSED[name]
    answer = server.post(**given)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert words in error["message"]
    assert len(error["message"]) < 1000


def test_a_nucleus_reaches_the_engine_and_no_number_is_none(server: Server) -> None:
    server.says("Five.").client.chat.completions.create(
        model="fake", messages=ASK, temperature=1, top_p=0.25,
        extra_body={"top_k": 40, "min_p": 0.125, "min_tokens": 2}, logit_bias={"65": -3},
    )  # fmt: skip
    assert server.runtime.narrowed == [(40, 0.25, 0.125)]
    assert server.runtime.bias == [{65: -3.0}]
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        content='{"messages": [{"role": "user", "content": "Hi?"}], "top_p": NaN}',
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "top_p")


def test_the_client_sees_a_refusal_as_its_own_error(server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        server.client.chat.completions.create(model="fake", messages=ASK, max_tokens=600)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        server.client.chat.completions.create(model="other", messages=ASK)


def test_values_that_ask_for_nothing_are_accepted(server: Server) -> None:
    neutral = {"n": 1, "top_p": 1, "tools": [], "tool_choice": "auto", "logit_bias": {}}
    server.ask(response_format={"type": "text"}, functions=None, user="me", stop=None, **neutral)
    server.ask(messages=[ASK[0] | {"name": None, "tool_calls": None}])


@pytest.mark.parametrize(
    ("encoding", "codec", "words"),
    [
        (None, CODEC, "names no chat encoding"),
        ("deepseek-v9", CODEC, "'deepseek-v9' is not known here"),
        ("deepseek-v3.2", IdCodec(), "no tokenizer"),
        ("deepseek-v3.2", chat_codec(leave_out=USER), f"no token {USER}"),
    ],
)
def test_a_model_that_cannot_chat_says_why(encoding: str | None, codec: Codec, words: str) -> None:
    facts = msgspec.structs.replace(CHATTING, chat_encoding=encoding)
    for server in _serve(ScriptedRuntime(facts=facts), codec):
        answer = server.post()
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
        assert words in message
        assert "/v1/completions" in message
