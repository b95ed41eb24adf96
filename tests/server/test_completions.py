"""`/v1/completions` over real HTTP, gateway and engine in one process, answers known beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from fake_runtime import EOS, VOCAB, FakeRuntime, Penalties, generate, logprobs_after
from http_server import running, small_codec

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import Codec, IdCodec

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5]
JSON = {"Content-Type": "application/json"}


def _serve(codec: Codec) -> Iterator[httpx.Client]:
    core = EngineCore(
        FakeRuntime(), EngineOptions(prefix_cache=False)
    )  # no test follows from another
    app = create_app(InProcessEngine(core), codec, Settings())
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def by_ids() -> Iterator[httpx.Client]:
    yield from _serve(IdCodec())


@pytest.fixture(scope="module")
def by_text() -> Iterator[httpx.Client]:
    yield from _serve(small_codec())


def _ask(client: httpx.Client, **given: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    answer = client.post("/v1/completions", json=body | given)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _events(client: httpx.Client, **given: Any) -> list[dict[str, Any]]:
    body = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=body | given) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_greedy_ids_and_usage(by_ids: httpx.Client) -> None:
    answer = _ask(by_ids, max_tokens=6)
    assert answer["object"] == "text_completion"
    assert answer["model"] == "fake"
    (choice,) = answer["choices"]
    assert choice["token_ids"] == generate(PROMPT, 6)
    assert choice["text"] == "".join(f"token_id:{t}" for t in choice["token_ids"])
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    assert answer["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 6,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_a_seed_repeats_an_answer(by_ids: httpx.Client) -> None:
    answer = _ask(by_ids, max_tokens=8, temperature=1.0, seed=1234)
    assert answer["choices"][0]["token_ids"] == generate(PROMPT, 8, 1.0, 1234)


def test_a_nucleus_narrows_what_is_sampled(by_ids: httpx.Client) -> None:
    found = [
        _ask(by_ids, max_tokens=8, temperature=1.0, seed=1234, top_p=top_p)["choices"][0]
        for top_p in (1e-6, 0.3, 1)
    ]
    want = [generate(PROMPT, 8, 1.0, 1234, top_p) for top_p in (1e-6, 0.3, 1)]
    assert [choice["token_ids"] for choice in found] == want
    assert want[0] == generate(PROMPT, 8) != want[1] != want[2]


@pytest.mark.parametrize(
    "asked",
    [{"top_k": 1}, {"top_k": 4}, {"min_p": 0.9}, {"top_k": 9, "top_p": 0.6, "min_p": 0.2}],
    ids=str,
)
def test_a_sample_is_of_the_ids_that_are_asked_for(
    by_ids: httpx.Client, asked: dict[str, Any]
) -> None:
    said = {"max_tokens": 8, "temperature": 1.0, "seed": 1234}
    (choice,) = _ask(by_ids, **said, **asked)["choices"]
    assert choice["token_ids"] == generate(PROMPT, 8, 1.0, 1234, **asked)
    assert choice["token_ids"] != generate(PROMPT, 8, 1.0, 1234)


@pytest.mark.parametrize("neutral", [{"top_k": -1}, {"top_k": 0}, {"min_p": 0.0}], ids=str)
def test_no_bound_on_a_sample_is_all_ids(by_ids: httpx.Client, neutral: dict[str, Any]) -> None:
    (choice,) = _ask(by_ids, max_tokens=8, temperature=1.0, seed=1234, **neutral)["choices"]
    assert choice["token_ids"] == generate(PROMPT, 8, 1.0, 1234)


def test_a_bias_makes_ids_likely_or_not_to_be_seen(by_ids: httpx.Client) -> None:
    plain = _ask(by_ids, max_tokens=6)["choices"][0]["token_ids"]
    bias = {plain[0]: -100, 8: 3.5}
    (choice,) = _ask(by_ids, max_tokens=6, logit_bias=bias)["choices"]
    assert choice["token_ids"] == generate(PROMPT, 6, bias=bias) != plain


def test_penalties_keep_ids_from_coming_again(by_ids: httpx.Client) -> None:
    asked = {"frequency_penalty": 1.5, "presence_penalty": 1.0, "repetition_penalty": 1.2}
    (choice,) = _ask(by_ids, max_tokens=16, **asked)["choices"]
    by = Penalties(repetition=1.2, frequency=1.5, presence=1.0)
    assert choice["token_ids"] == generate(PROMPT, 16, by_tokens=by) != generate(PROMPT, 16)


def test_an_answer_has_the_tokens_that_are_asked_for_at_least(by_ids: httpx.Client) -> None:
    (first, *_) = generate(PROMPT, 1)
    asked = {"max_tokens": 9, "stop_token_ids": [first], "ignore_eos": True}
    assert _ask(by_ids, **asked)["choices"][0]["token_ids"] == [first]
    (choice,) = _ask(by_ids, min_tokens=4, **asked)["choices"]
    want = generate(PROMPT, 9, min_tokens=4, ends=[first])
    assert choice["token_ids"][:4] == want[:4]
    assert first not in choice["token_ids"][:4]
    eos = {"logit_bias": {EOS: 100}, "max_tokens": 9, "ignore_eos": False}
    assert len(_ask(by_ids, **eos)["choices"][0]["token_ids"]) == 1
    (choice,) = _ask(by_ids, min_tokens=4, **eos)["choices"]
    assert (choice["finish_reason"], choice["token_ids"][4:]) == ("stop", [EOS])
    assert EOS not in choice["token_ids"][:4]
    (choice,) = _ask(by_ids, min_tokens=4, **eos | {"ignore_eos": True})["choices"]
    assert choice["token_ids"] == [EOS] * 9, "nothing would have ended it"


def test_batched_prompts_come_back_in_order(by_ids: httpx.Client) -> None:
    prompts = [[n] * (n + 1) for n in range(9)]
    answer = _ask(by_ids, prompt=prompts, max_tokens=4)
    assert [c["index"] for c in answer["choices"]] == list(range(9))
    assert [c["token_ids"] for c in answer["choices"]] == [generate(p, 4) for p in prompts]
    assert answer["usage"]["prompt_tokens"] == 45


@pytest.mark.parametrize("max_tokens", [0, 1, 3])
def test_echo_with_logprobs_scores_prompt_and_answer(by_ids: httpx.Client, max_tokens: int) -> None:
    (choice,) = _ask(by_ids, max_tokens=max_tokens, echo=True, logprobs=2)["choices"]
    tokens = PROMPT + generate(PROMPT, max_tokens)
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == [f"token_id:{t}" for t in tokens]
    expected = [logprobs_after(tokens[:i])[tokens[i]] for i in range(1, len(tokens))]
    assert logprobs["token_logprobs"] == [None, *expected]
    assert logprobs["top_logprobs"][0] is None
    best = max(range(VOCAB), key=lambda t: logprobs_after(tokens[:1])[t])
    assert next(iter(logprobs["top_logprobs"][1])) == f"token_id:{best}"
    assert all(2 <= len(top) <= 3 for top in logprobs["top_logprobs"][1:])
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][offset:].startswith(token)
    assert choice["token_ids"] == tokens[len(PROMPT) :]


def test_logprobs_without_echo_are_those_of_the_answer(by_ids: httpx.Client) -> None:
    (choice,) = _ask(by_ids, max_tokens=3, logprobs=1)["choices"]
    assert choice["logprobs"]["tokens"] == [f"token_id:{t}" for t in generate(PROMPT, 3)]
    assert choice["text"] == "".join(choice["logprobs"]["tokens"])


def test_text_comes_back_as_text_with_aligned_offsets(by_text: httpx.Client) -> None:
    codec = small_codec()
    (choice,) = _ask(by_text, prompt="aé b", max_tokens=0, echo=True, logprobs=1)["choices"]
    assert choice["text"] == "aé b"
    assert choice["logprobs"]["tokens"] == ["a", "token_id:2", "token_id:3", " ", "b"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 1, 2, 3]
    (choice,) = _ask(by_text, prompt="Hello", max_tokens=12, echo=True)["choices"]
    assert choice["text"] == "Hello" + codec.decode(generate(codec.encode("Hello"), 12))


def test_streamed_parts_add_up_to_the_whole_answer(by_text: httpx.Client) -> None:
    given = {"prompt": ["one", "two"], "max_tokens": 20, "logprobs": 1, "echo": True}
    whole = _ask(by_text, **given)
    events = _events(by_text, stream_options={"include_usage": True}, **given)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == whole["usage"]
    assert all(event["usage"] is None for event in events[:-1])
    for choice in whole["choices"]:
        parts = [c for e in events for c in e["choices"] if c["index"] == choice["index"]]
        assert len(parts) > 10
        assert "".join(part["text"] for part in parts) == choice["text"]
        tokens = [token for part in parts for token in part["logprobs"]["tokens"]]
        assert tokens == choice["logprobs"]["tokens"]
        assert [p["finish_reason"] for p in parts if p["finish_reason"]] == ["length"]


def test_a_stop_string_across_tokens_ends_the_text_before_it(by_text: httpx.Client) -> None:
    whole = _ask(by_text, prompt="stop", max_tokens=30)["choices"][0]["text"]
    stop = whole[10:13]
    expected = whole[: whole.index(stop)]
    answer = _ask(by_text, prompt="stop", max_tokens=30, stop=["never", stop])
    assert answer["choices"][0]["text"] == expected
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] < 30
    events = _events(by_text, prompt="stop", max_tokens=30, stop=stop)
    assert "".join(e["choices"][0]["text"] for e in events) == expected


def test_the_openai_client_completes_and_streams(by_text: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{by_text.base_url}/v1", api_key="none")
    assert client.models.list().data[0].id == "fake"
    asked: Any = {"model": "fake", "prompt": "Hello", "max_tokens": 9, "temperature": 0}
    whole = client.completions.create(**asked)
    parts = list(client.completions.create(stream=True, **asked))
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="fake", prompt="Hello", max_tokens=1000)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": [[]]}, "prompt", "invalid_value"),
        ({"prompt": [[1], []]}, "prompt", "invalid_value"),
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": 7}, "prompt", "invalid_value"),
        ({"prompt": [1, "a"]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1.5]}, "prompt[0]", "invalid_value"),
        ({"prompt": [True]}, "prompt", "invalid_value"),
        ({"prompt": [VOCAB]}, "prompt", "invalid_value"),
        ({"prompt": [-1]}, "prompt[0]", "invalid_value"),
        ({"prompt": [2**40]}, "prompt[0]", "invalid_value"),
        ({"prompt": "text"}, "prompt", "unsupported_value"),
        ({"prompt": [1] * 60, "max_tokens": 5}, "prompt", "context_length_exceeded"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"max_tokens": "6"}, "max_tokens", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"best_of": 3}, "best_of", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_p": 1.1}, "top_p", "invalid_value"),
        ({"top_p": "0.5"}, "top_p", "invalid_value"),
        ({"presence_penalty": 2.1}, "presence_penalty", "invalid_value"),
        ({"frequency_penalty": -2.1}, "frequency_penalty", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"repetition_penalty": 2.1}, "repetition_penalty", "invalid_value"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty", "invalid_value"),
        (
            {"prompt": [[1]] * 69, "logit_bias": dict.fromkeys(map(str, range(60)), 1)},
            "logit_bias",
            "invalid_value",
        ),
        ({"suffix": "x"}, "suffix", "invalid_value"),
        ({"logit_bias": {"61": 5}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"1": 100.5}}, "logit_bias[...]", "invalid_value"),
        ({"logit_bias": {"-1": 5}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"one": 5}}, "logit_bias", "invalid_value"),
        ({"logit_bias": [5]}, "logit_bias", "invalid_value"),
        ({"min_tokens": -1}, "min_tokens", "invalid_value"),
        ({"min_tokens": 7, "max_tokens": 6}, "min_tokens", "invalid_value"),
        ({"logprobs": 21}, "logprobs", "invalid_value"),
        ({"stop": "x"}, "stop", "unsupported_value"),
        ({"top_k": -2}, "top_k", "invalid_value"),
        ({"top_k": 2.5}, "top_k", "invalid_value"),
        ({"top_k": True}, "top_k", "invalid_value"),
        ({"min_p": -0.1}, "min_p", "invalid_value"),
        ({"min_p": 1.1}, "min_p", "invalid_value"),
        ({"top": 3}, "top", "unknown_parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ],
)
def test_bad_values_are_400_and_name_the_parameter(
    by_ids: httpx.Client, given: dict[str, Any], param: str | None, code: str
) -> None:
    answer = by_ids.post("/v1/completions", json={"prompt": PROMPT} | given)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, code), error


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "-1"])
def test_no_number_is_a_nucleus_but_one_in_its_range(by_ids: httpx.Client, value: str) -> None:
    answer = by_ids.post(
        "/v1/completions", content=f'{{"prompt": [1], "top_p": {value}}}', headers=JSON
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "top_p"


def test_values_that_ask_for_nothing_are_accepted(by_ids: httpx.Client) -> None:
    neutral = {"n": 1, "best_of": 1, "top_p": 1.0, "presence_penalty": 0, "suffix": None}
    _ask(by_ids, max_tokens=1, logit_bias={}, stop=None, user="me", model="fake", **neutral)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"prompt": "\\ud800"}', b"\xff", b"{}"])
def test_what_is_no_request_is_400(by_ids: httpx.Client, body: bytes) -> None:
    answer = by_ids.post("/v1/completions", content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_other_models_and_paths_are_404(by_ids: httpx.Client) -> None:
    answer = by_ids.post("/v1/completions", json={"prompt": PROMPT, "model": "other"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert by_ids.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert by_ids.get("/v1/completions").status_code == 405


def test_models_health_and_ready(by_ids: httpx.Client) -> None:
    (model,) = by_ids.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("fake", 64)
    assert by_ids.get("/health").status_code == 200
    assert by_ids.get("/ready").status_code == 200


def test_request_ids_are_echoed_or_made(by_ids: httpx.Client) -> None:
    given = by_ids.get("/health", headers={"X-Request-Id": "mine-7"})
    assert given.headers["x-request-id"] == "mine-7"
    assert len(by_ids.get("/health").headers["x-request-id"]) == 32


def test_the_api_description_has_no_422(by_ids: httpx.Client) -> None:
    route = by_ids.get("/openapi.json").json()["paths"]["/v1/completions"]["post"]
    assert "422" not in route["responses"]
    assert {"400", "413", "429", "503"} <= route["responses"].keys()
