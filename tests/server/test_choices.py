"""`n`: several answers to a prompt, each as its seed alone gives it, over one run of the prompt."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import msgspec
import pytest
from fake_runtime import EOS, FakeLimits, FakeRuntime, generate
from http_server import running
from scripted_runtime import CODEC, ScriptedRuntime
from sharing_engine import PAGE, SharingEngine, text

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.models import MAX_CHOICES, MAX_CHOICES_TOGETHER
from lostwax.server.gateway.submits import MAX_BIASES_TOGETHER
from lostwax.server.gateway.tokenizer import IdCodec

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5]
BODY = {"prompt": PROMPT, "max_tokens": 6, "ignore_eos": True, "return_token_ids": True}
SAMPLED = {"temperature": 1.0, "seed": 7}
CHAT = {"messages": [{"role": "user", "content": "Hi?"}]}


class Server:
    """A served fake runtime."""

    def __init__(self, core: EngineCore, client: httpx.Client) -> None:
        self.core = core
        self.client = client

    def ask(self, **given: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/completions", json=BODY | given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, **given: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/completions", json=BODY | given)
        assert answer.status_code == 400, answer.text
        return answer.json()["error"]


@contextmanager
def _served(
    settings: Settings | None = None, runtime: FakeRuntime | None = None
) -> Generator[Server]:
    core = EngineCore(runtime or FakeRuntime())
    app = create_app(InProcessEngine(core), IdCodec(), settings or Settings())
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield Server(core, client)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with _served() as served:
        yield served


def _events(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]", answer.text
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("seed", [7, 2**32 - 2, -1])
def test_choice_i_is_the_answer_to_the_request_with_the_seed_i_above_its_own(
    server: Server, seed: int
) -> None:
    answer = server.ask(n=5, temperature=1.0, seed=seed)
    choices = answer["choices"]
    assert [choice["index"] for choice in choices] == list(range(5))
    alone = [server.ask(temperature=1.0, seed=seed + i)["choices"][0] for i in range(5)]
    assert [c["token_ids"] for c in choices] == [c["token_ids"] for c in alone]
    assert len({tuple(choice["token_ids"]) for choice in choices}) > 1


def test_without_a_seed_choices_differ_from_one_another_and_from_those_before(
    server: Server,
) -> None:
    answers = [server.ask(n=4, temperature=1.0)["choices"] for _ in range(2)]
    ids = [[tuple(choice["token_ids"]) for choice in choices] for choices in answers]
    assert len(set(ids[0])) > 1
    assert ids[0] != ids[1]


def test_choices_of_several_prompts_stand_prompt_by_prompt(server: Server) -> None:
    prompts = [PROMPT, [5, 5]]
    answer = server.ask(prompt=prompts, n=3, **SAMPLED)
    want = [generate(prompt, 6, 1.0, 7 + i) for prompt in prompts for i in range(3)]
    assert [choice["token_ids"] for choice in answer["choices"]] == want
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert answer["usage"]["prompt_tokens"] == len(PROMPT) + 2, "each prompt counts once"
    assert answer["usage"]["completion_tokens"] == 6 * 6


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_has_all_choices_and_each_ends_once(server: Server, echo: bool) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}, "echo": echo}
    body = BODY | asked | SAMPLED | {"n": 3}
    *parts, last = _events(server.client.post("/v1/completions", json=body))
    whole = server.ask(n=3, echo=echo, **SAMPLED)["choices"]
    for index, choice in enumerate(whole):
        mine = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
        assert "".join(part["text"] for part in mine) == choice["text"]
        assert [p["finish_reason"] for p in mine if p["finish_reason"]] == ["length"]
    assert last["usage"]["prompt_tokens"] == len(PROMPT)
    assert last["usage"]["completion_tokens"] == 18


def test_usage_tells_what_was_found_before_the_first_choice_ran() -> None:
    with _served() as server:
        found = [
            server.ask(n=4, **SAMPLED)["usage"]["prompt_tokens_details"]["cached_tokens"]
            for _ in range(2)
        ]
    assert found == [0, 8]


def test_a_chat_has_n_messages_whole_and_streamed() -> None:
    script = CODEC.encode_rendered("Yes.")
    app = create_app(InProcessEngine(EngineCore(ScriptedRuntime(script=script))), CODEC, Settings())
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        whole = client.post("/v1/chat/completions", json=CHAT | {"n": 3}).json()
        streamed = client.post("/v1/chat/completions", json=CHAT | {"n": 3, "stream": True})
        one = client.post("/v1/chat/completions", json=CHAT).json()
    said = [choice["message"]["content"] for choice in whole["choices"]]
    assert said == [one["choices"][0]["message"]["content"]] * 3
    assert whole["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert whole["usage"]["completion_tokens"] == 3 * one["usage"]["completion_tokens"]
    deltas = [event["choices"][0] for event in _events(streamed)]
    for index, text_ in enumerate(said):
        mine = [delta for delta in deltas if delta["index"] == index]
        assert [d["delta"]["role"] for d in mine if "role" in d["delta"]] == ["assistant"]
        assert "".join(d["delta"].get("content", "") for d in mine) == text_
        assert [d["finish_reason"] for d in mine if d["finish_reason"]] == ["stop"]


def test_an_end_of_one_choice_is_none_of_the_others(server: Server) -> None:
    choices = server.ask(n=12, max_tokens=40, ignore_eos=False, temperature=1.0, seed=0)["choices"]
    for i, choice in enumerate(choices):
        alone = generate(PROMPT, 40, 1.0, i)
        ends = alone.index(EOS) + 1 if EOS in alone else 40
        assert choice["token_ids"] == alone[:ends]
    assert {choice["finish_reason"] for choice in choices} == {"stop", "length"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_all_its_choices(stream: bool) -> None:
    with _served(runtime=FakeRuntime(step_s=0.02)) as server:
        body = BODY | {"n": 12, "max_tokens": 50, "stream": stream}
        with (
            suppress(httpx.ReadTimeout),
            server.client.stream("POST", "/v1/completions", json=body, timeout=0.3) as answer,
        ):
            lines = answer.iter_lines()
            assert [next(lines) for _ in range(9)]
        assert server.core.has_work
        deadline = time.monotonic() + 5
        while server.core.has_work and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not server.core.has_work
        pages = server.core.scheduler.pages
        assert pages.num_free == pages.num_usable
        assert server.client.get("/health").json()["running"] == 0


def test_the_queue_counts_each_choice() -> None:
    with _served(Settings(max_admitted_reqs=4), FakeRuntime(step_s=0.02)) as server:
        error = server.refused(n=5)
        assert (error["param"], error["code"]) == ("n", "invalid_value")
        body = BODY | {"n": 3, "max_tokens": 50, "stream": True}
        with server.client.stream("POST", "/v1/completions", json=body) as running_one:
            lines = running_one.iter_lines()  # which ends the answer when it is dropped
            next(lines)
            full = server.client.post("/v1/completions", json=BODY | {"n": 2})
            assert full.status_code == 429
            assert "3 of 4 answers run or wait" in full.json()["error"]["message"]
            assert server.client.post("/v1/completions", json=BODY).status_code == 200


def test_the_queue_counts_the_tokens_of_each_choice() -> None:
    """A running one of 59 and five of 6 to a prompt of 9 fit into 100, six do not."""
    with _served(Settings(max_admitted_tokens=100), FakeRuntime(step_s=0.02)) as server:
        body = BODY | {"max_tokens": 50, "stream": True}
        with server.client.stream("POST", "/v1/completions", json=body) as running_one:
            lines = running_one.iter_lines()  # which ends the answer when it is dropped
            next(lines)
            full = server.client.post("/v1/completions", json=BODY | {"n": 6})
            assert full.status_code == 429
            assert full.json()["error"]["code"] == "queue_full"
            assert "brings 59 of 100 tokens" in full.json()["error"]["message"]
            assert server.client.post("/v1/completions", json=BODY | {"n": 5}).status_code == 200
        alone = server.client.post("/v1/completions", json=BODY | {"n": 12, "max_tokens": 50})
        assert alone.status_code == 200, "who comes while there is no other is taken"


@pytest.mark.parametrize("n", [0, -1, MAX_CHOICES + 1, 1.5, "2", True, 10**30])
def test_what_is_no_number_of_choices_is_refused(server: Server, n: Any) -> None:
    assert server.refused(n=n)["param"] == "n"


def test_choices_are_bounded_together(server: Server) -> None:
    prompts = [[1]] * (MAX_CHOICES_TOGETHER // MAX_CHOICES)
    assert len(server.ask(prompt=prompts, n=MAX_CHOICES, max_tokens=0)["choices"]) == 252
    error = server.refused(prompt=[*prompts, [1]], n=MAX_CHOICES)
    assert (error["param"], error["code"]) == ("n", "invalid_value")
    assert "lower n or send fewer prompts" in error["message"]


def test_biases_of_all_choices_are_bounded_together(server: Server) -> None:
    prompts = [[1]] * 10
    bias = dict.fromkeys(map(str, range(MAX_BIASES_TOGETHER // (10 * MAX_CHOICES))), 1)
    server.ask(prompt=prompts, n=MAX_CHOICES, logit_bias=bias, max_tokens=1)
    error = server.refused(prompt=prompts, n=MAX_CHOICES, logit_bias=bias | {"59": 1})
    assert error["param"] == "logit_bias"


@pytest.mark.parametrize(
    ("given", "takes"), [({"n": 2, "best_of": 3}, "1 or 2"), ({"best_of": 2}, "1 is")]
)
def test_best_of_more_is_refused_with_the_way_out(
    server: Server, given: dict[str, int], takes: str
) -> None:
    error = server.refused(**given)
    assert error["param"] == "best_of"
    assert f"only {takes}" in error["message"]
    assert "ask for n answers with logprobs" in error["message"]


@pytest.mark.parametrize("given", [{"n": 3, "best_of": 3}, {"n": 3, "best_of": 1}, {"best_of": 1}])
def test_best_of_as_many_as_there_are_ranks_nothing_and_is_taken(
    server: Server, given: dict[str, int]
) -> None:
    assert len(server.ask(**given)["choices"]) == given.get("n", 1)


def test_choices_share_the_ids_of_their_prompt() -> None:
    submit = Submit(request="r", prompt=PROMPT, max_tokens=1, seed=2**32 - 1)
    choices = msgspec.structs.replace(submit, num_choices=3).choices
    assert all(choice.prompt is submit.prompt for choice in choices)
    assert [choice.seed for choice in choices] == [2**32 - 1, 0, 1]
    assert len({choice.request for choice in choices}) == 3


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("max_tokens", [16, 64])
def test_equal_prompts_that_come_at_once_are_run_once(
    depth: int, drafts: int, max_tokens: int
) -> None:
    """A step of 64 rows would take all of them, one of 16 the first in two steps."""
    engine = SharingEngine(max_drafts=drafts, max_tokens=max_tokens, num_pages=65)
    engine.core = EngineCore(engine.runtime, depth=depth)
    prompt = text(5 * PAGE + 2)
    with engine.rows() as rows:
        for number in range(4):
            engine.add(f"choice {number}", prompt, temperature=1.0, seed=number)
        engine.finish()
    assert sum(rows) == len(prompt) + 3 * 2, "the others run what stands behind the whole pages"
    for number in range(4):
        assert engine.tokens[f"choice {number}"] == generate(prompt, 5, 1.0, number)


def test_who_waits_for_a_page_waits_no_longer_than_its_writer_is_there() -> None:
    engine = SharingEngine()
    prompt = text(10 * PAGE)
    engine.add("writer", prompt, seed=1)
    engine.add("waits", prompt)
    engine.step()
    engine.core.scheduler.remove(engine.core.scheduler.running[0])
    engine.finish()
    assert engine.tokens["waits"] == generate(prompt, 5)
    assert engine.found["waits"] == FakeLimits().max_tokens, "what the writer's one step has given"


def test_who_drafts_nothing_waits_for_a_page_of_who_drafts() -> None:
    """Such a page holds all that it needs."""
    engine = SharingEngine(max_drafts=3, num_pages=65)
    prompt = text(5 * PAGE + 2)
    engine.add("drafts", prompt)
    engine.add("drafts for none", prompt, max_tokens=1)
    with engine.rows() as rows:
        engine.finish()
    assert rows == [16, 6, 2]
    assert engine.found["drafts for none"] == 5 * PAGE
    assert engine.tokens["drafts for none"] == generate(prompt, 1)


def test_nobody_waits_for_a_page_that_it_could_not_take() -> None:
    engine = SharingEngine(max_drafts=3, max_tokens=64)
    prompt = text(3 * PAGE)
    engine.add("drafts for none", prompt, max_tokens=1)
    engine.add("drafts", prompt)
    engine.add("scores", prompt, score_prompt=True, top_logprobs=1)
    with engine.rows() as rows:
        engine.finish()
    assert len(rows) == 1
