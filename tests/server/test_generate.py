"""SGLang's `/generate` over HTTP, with answers written beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import msgspec
import pytest
from fake_runtime import FakeLimits
from http_server import running
from scripted_runtime import CODEC, EOS_ID, VOCAB, ScriptedRuntime, spelt

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.generate import GROWTH
from lostwax.server.gateway.generate_answer import Generated
from lostwax.server.gateway.in_process import InProcessEngine

ROOMY = FakeLimits(max_context=4096, page_tokens=16, num_pages=1025, vocab_size=VOCAB)


class Server:
    """A server whose answers a test writes."""

    def __init__(self, runtime: ScriptedRuntime, url: str) -> None:
        self.runtime = runtime
        self.url = url

    def says(self, text: str) -> Server:
        """What the model answers from now on."""
        self.runtime.script = spelt(text)
        return self

    def post(self, **given: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/generate", json=given, timeout=20)

    def ask(self, **given: Any) -> Any:
        answer = self.post(**given)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        msgspec.convert(found if isinstance(found, list) else [found], list[Generated])
        return found

    def stream(self, **given: Any) -> list[dict[str, Any]]:
        parts = self.post(stream=True, **given).text.split("\n\n")
        lines = [part.removeprefix("data: ") for part in parts if part]
        assert lines[-1] == "[DONE]", lines
        return [json.loads(line) for line in lines[:-1]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    runtime = ScriptedRuntime(limits=ROOMY)
    with running(create_app(InProcessEngine(EngineCore(runtime)), CODEC, Settings())) as url:
        yield Server(runtime, url)


def test_a_text_is_continued(server: Server) -> None:
    answer = server.says("two, three").ask(text="One, ", sampling_params={"temperature": 0})
    assert answer["text"] == "two, three"
    assert answer["output_ids"] == [*spelt("two, three"), EOS_ID]
    meta = answer["meta_info"]
    assert meta.pop("id")
    assert meta == {
        "finish_reason": {"type": "stop", "matched": EOS_ID},
        "prompt_tokens": 5,
        "completion_tokens": 11,
        "cached_tokens": 0,
    }


def test_ids_are_continued_and_why_it_ended_is_told(server: Server) -> None:
    ids = spelt("One, ")
    for given, reason in (
        ({"max_new_tokens": 3}, {"type": "length", "length": 3}),
        ({"stop": ["never", ", t"]}, {"type": "stop", "matched": ", t"}),
        ({"stop_token_ids": spelt("w")}, {"type": "stop", "matched": spelt("w")[0]}),
    ):
        answer = server.says("two, three").ask(input_ids=ids, sampling_params=given)
        assert answer["meta_info"]["finish_reason"] == reason
    assert server.runtime.prompt == ids


def test_128_tokens_come_where_nobody_says_how_many(server: Server) -> None:
    answer = server.says("x" * 200).ask(text="x")
    assert answer["meta_info"]["completion_tokens"] == 128


@pytest.mark.parametrize(
    "given",
    [
        {"text": ["a", "bc"]},
        {"input_ids": [spelt("a"), spelt("bc")]},
        {"text": "a", "sampling_params": {"n": 2}},
    ],
)
def test_several_answers_are_a_list(server: Server, given: dict[str, Any]) -> None:
    answers = server.says("yes").ask(**given)
    assert [answer["text"] for answer in answers] == ["yes", "yes"]
    lengths = [answer["meta_info"]["prompt_tokens"] for answer in answers]
    assert lengths == ([1, 1] if "sampling_params" in given else [1, 2])
    assert len({answer["meta_info"]["id"] for answer in answers}) == 2
    parts = server.stream(**given)
    last = {part["index"]: part["text"] for part in parts}
    assert last == {0: "yes", 1: "yes"}
    assert len(server.ask(text=["a"])) == 1


def test_a_cached_prompt_is_told(server: Server) -> None:
    text = "z" * 100
    server.says("yes").ask(text=text)
    assert server.ask(text=text)["meta_info"]["cached_tokens"] >= 80


def test_each_part_of_a_stream_has_the_answer_so_far(server: Server) -> None:
    said = "".join(chr(97 + i % 26) for i in range(1500))
    parts = server.says(said).stream(text="x", sampling_params={"max_new_tokens": 2000})
    texts = [part["text"] for part in parts]
    assert texts[:3] == ["a", "ab", "abc"]
    assert all(after.startswith(before) for before, after in pairwise(texts))
    assert texts[-1] == said
    reasons = [part["meta_info"]["finish_reason"] for part in parts]
    assert [reason for reason in reasons if reason] == [{"type": "stop", "matched": EOS_ID}]
    assert reasons[-1]
    assert sum(map(len, texts)) < (GROWTH + 2) * len(said), "in all, not the answer's square"


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no prompt": ({}, "text", "input_ids in its place"),
    "two prompts": ({"text": "a", "input_ids": [1]}, "input_ids", "give one"),
    "ids as a text": ({"text": [1, 2]}, "text", "a text belongs here"),
    "a text as ids": ({"input_ids": ["a"]}, "input_ids", "list of ids"),
    "an empty text": ({"text": ""}, "text", "empty"),
    "an id of no token": ({"input_ids": [VOCAB]}, "input_ids", "outside"),
    "log-probabilities": ({"text": "a", "return_logprob": True}, "return_logprob", "/v1/comp"),
    "a name": ({"text": "a", "rid": "x"}, "rid", "X-Request-Id"),
    "tags": (
        {"text": "a", "sampling_params": {"structural_tag": "{}"}},
        "sampling_params.structural_tag",
        "as ebnf",
    ),
    "two formats": (
        {"text": "a", "sampling_params": {"regex": "a+", "json_schema": "{}"}},
        "sampling_params",
        "sampling_params.json_schema says what the answer is to be",
    ),
    "a schema that is no object": (
        {"text": "a", "sampling_params": {"json_schema": "true"}},
        "sampling_params.json_schema",
        "which is an object",
    ),
    "an empty regex": (
        {"text": "a", "sampling_params": {"regex": ""}},
        "sampling_params.regex",
        "length >= 1",
    ),
    "a deep regex": (
        {"text": "a", "sampling_params": {"regex": "(" * 65 + ")" * 65}},
        "sampling_params.regex",
        "nested 65 deep",
    ),
    "no end of the regex": (
        {"text": "a", "sampling_params": {"regex": "a+", "ignore_eos": True}},
        "sampling_params.ignore_eos",
        "where sampling_params.regex lets it end",
    ),
    "an end behind the regex": (
        {"text": "a", "sampling_params": {"regex": "a+", "min_new_tokens": 2}},
        "sampling_params.min_new_tokens",
        "leave this parameter out",
    ),
    "an unknown field": (
        {"text": "a", "sampling_params": {"beam": 1}},
        "sampling_params.beam",
        "remove it",
    ),
    "a strange bias": (
        {"text": "a", "sampling_params": {"logit_bias": {str(VOCAB): 1}}},
        "sampling_params.logit_bias",
        "outside",
    ),
    "too long an answer": (
        {"text": "a", "sampling_params": {"max_new_tokens": 5000}},
        "text",
        "maximum context length",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_says_what_to_do(server: Server, name: str) -> None:
    given, param, words = REFUSED[name]
    answer = server.post(**given)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert words in error["message"], error


def test_embeddings_are_refused_with_a_remedy(server: Server) -> None:
    answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": "a"})
    assert answer.status_code == 400
    assert "no embeddings; ask a server" in answer.json()["error"]["message"]
