"""The engine answers every request as if it were alone, and loses no page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from answers import Answers
from fake_runtime import EOS, VOCAB, FakeLimits, FakeRuntime, generate, logprobs_after
from hypothesis import given, settings
from hypothesis import strategies as st

from lostwax.server.engine.loop import EngineCore, TooManyDrafts
from lostwax.server.engine.messages import (
    Cancel,
    Failed,
    Output,
    Submit,
    TokenScore,
    decode_commands,
    decode_events,
    encode,
)
from lostwax.server.engine.options import EngineOptions


def _submit(name: str, prompt: list[int], max_tokens: int = 5, **given: object) -> Submit:
    base = Submit(request=name, prompt=prompt, max_tokens=max_tokens, ignore_eos=True)
    return msgspec.structs.replace(base, **given)


def test_requests_of_unequal_length_get_the_answers_they_get_alone() -> None:
    prompts = {"a": [1], "b": list(range(2, 25)), "c": list(range(7)), "d": [5] * 40, "e": [9, 9]}
    answers = Answers(EngineCore(FakeRuntime()))
    answers.submit(*(_submit(name, prompt) for name, prompt in prompts.items()))
    answers.finish()
    assert {n: answers.ids(n) for n in prompts} == {n: generate(p, 5) for n, p in prompts.items()}


@pytest.mark.parametrize("max_tokens", [1, 3, 7, 64])
def test_chunked_prefill_equals_unchunked(max_tokens: int) -> None:
    runtime = FakeRuntime(replace(FakeLimits(), max_tokens=max_tokens))
    answers = Answers(EngineCore(runtime))
    prompt = [(7 * i) % VOCAB for i in range(41)]
    answers.submit(_submit("a", prompt, temperature=0.7, seed=-3))
    answers.finish()
    assert answers.ids("a") == generate(prompt, 5, temperature=0.7, seed=-3)
    num_extends = sum(batch.entry == "extend" for batch in runtime.batches)
    assert num_extends == -(-41 // max_tokens)


@pytest.mark.parametrize("max_tokens", [1, 4, 64])
def test_prompt_scores_cover_every_token_but_the_first(max_tokens: int) -> None:
    runtime = FakeRuntime(replace(FakeLimits(), max_tokens=max_tokens))
    answers = Answers(EngineCore(runtime))
    prompt = [(5 * i) % VOCAB for i in range(23)]
    answers.submit(
        _submit("scored", prompt, 0, score_prompt=True, top_logprobs=2),
        _submit("sampled", prompt, 3, top_logprobs=3),
        _submit("plain", prompt, 3),
        _submit("both", prompt, 2, score_prompt=True),
    )
    answers.finish()
    expected = [(t, logprobs_after(prompt[:i])[t]) for i, t in enumerate(prompt) if i > 0]
    for name in ("scored", "both"):
        assert [(s.token, s.logprob) for s in answers.prompt_scores[name]] == expected
    assert all(len(s.top) == 2 for s in answers.prompt_scores["scored"])
    assert all(s.top[0] == (s.token, s.logprob) for s in answers.tokens["sampled"])
    assert answers.ids("plain") == answers.ids("sampled") == generate(prompt, 3)
    assert answers.ids("scored") == []
    assert answers.ends["scored"] == "length"


def test_a_request_waits_until_all_its_pages_are_free() -> None:
    answers = Answers(EngineCore(FakeRuntime(replace(FakeLimits(), num_pages=17))))
    answers.submit(_submit("a", [1] * 40, 8), _submit("b", [2] * 40, 8))
    answers.step()
    assert [r.name for r in answers.core.scheduler.waiting] == ["b"]
    answers.finish()
    assert answers.ids("b") == generate([2] * 40, 8)


def test_prefill_and_decode_take_turns() -> None:
    runtime = FakeRuntime(replace(FakeLimits(), max_tokens=4))
    answers = Answers(EngineCore(runtime))
    answers.submit(_submit("short", [1], 6))
    answers.step()
    answers.submit(_submit("long", [2] * 20, 2))
    answers.finish()
    entries = "".join(batch.entry[0] for batch in runtime.batches)
    assert entries.startswith("edededede")


@pytest.mark.parametrize("drafts", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drafts_save_steps_and_change_no_token(drafts: int, temperature: float) -> None:
    runtime = FakeRuntime(replace(FakeLimits(), max_drafts=3))
    core = EngineCore(runtime, EngineOptions(drafts))
    answers = Answers(core)
    prompts = {"a": [1], "b": list(range(2, 25)), "c": [5] * 31}
    answers.submit(*(_submit(n, p, 20, temperature=temperature) for n, p in prompts.items()))
    answers.finish()
    want = {n: generate(p, 20, temperature) for n, p in prompts.items()}
    assert {n: answers.ids(n) for n in prompts} == want
    assert 0.3 < core.drafting.num_accepted / core.drafting.num_drafted < 0.9
    num_decodes = sum(batch.entry == "decode" for batch in runtime.batches)
    assert num_decodes < 19, "some step gave more than one token"
    assert max(len(batch.tokens) for batch in runtime.batches if batch.entry == "decode") <= 3 * (
        drafts + 1
    )


@pytest.mark.parametrize("wants", [{"temperature": 1.0, "top_p": 0.95}, {"top_logprobs": 2}])
def test_a_neighbours_sampling_changes_no_tokens_steps_or_drafts(wants: dict[str, Any]) -> None:
    """Three greedy requests beside a fourth one, which is greedy too or samples."""
    seen: list[dict[str, list[list[int]]]] = []
    for last in ({}, wants):
        answers = Answers(EngineCore(FakeRuntime(replace(FakeLimits(), max_drafts=3))))
        submits = [_submit(str(n), [n, 7, 7], 20) for n in range(3)]
        answers.submit(*submits, _submit("last", [9], 20, **last))
        steps: dict[str, list[list[int]]] = {str(n): [] for n in range(3)}
        while answers.core.has_work:
            before = {name: len(answers.ids(name)) for name in steps}
            answers.step()
            for name, tokens in steps.items():
                tokens.append(answers.ids(name)[before[name] :])
        seen.append(steps)
        assert max(len(tokens) for tokens in steps["0"]) > 1, "no draft was accepted"
    greedy, mixed = ({n: [t for t in s if t] for n, s in steps.items()} for steps in seen)
    assert greedy == mixed


@pytest.mark.parametrize("drafts", [0, 3])
def test_a_nucleus_is_a_requests_own_and_costs_no_step_without_it(drafts: int) -> None:
    runtime = FakeRuntime(replace(FakeLimits(), max_drafts=3))
    answers = Answers(EngineCore(runtime, EngineOptions(drafts)))
    warm: dict[str, Any] = {"temperature": 1.0, "seed": 5}
    given: dict[str, dict[str, Any]] = {
        "tiny": warm | {"top_p": 1e-6},
        "some": warm | {"top_p": 0.3},
        "all": warm,
        "greedy": {"top_p": 0.3},
    }
    prompt = [(5 * i) % VOCAB for i in range(23)]
    answers.submit(*(_submit(n, prompt, 9, **values) for n, values in given.items()))
    answers.finish()
    want = {n: generate(prompt, 9, **values) for n, values in given.items()}
    assert {n: answers.ids(n) for n in given} == want
    assert want["tiny"] == want["greedy"] != want["some"] != want["all"]
    runtime.batches.clear()
    answers.submit(*(_submit(f"{n} again", prompt, 9, **given[n]) for n in ("all", "greedy")))
    answers.finish()
    assert {batch.head for batch in runtime.batches} == {"pick"}


@pytest.mark.parametrize("wants", [{"temperature": 1.0, "top_p": 0.3}, {"top_logprobs": 2}])
def test_no_sampling_feature_keeps_a_request_from_drafting(wants: dict[str, Any]) -> None:
    runtime = FakeRuntime(replace(FakeLimits(), max_drafts=3))
    answers = Answers(EngineCore(runtime))
    answers.submit(_submit("a", [3, 1], 20, **wants))
    answers.finish()
    assert "draft" in {batch.entry for batch in runtime.batches}
    assert answers.core.drafting.num_accepted > 0
    sampled = {k: v for k, v in wants.items() if k != "top_logprobs"}
    assert answers.ids("a") == generate([3, 1], 20, **sampled)


def test_more_drafts_than_programs_verify_are_refused() -> None:
    with pytest.raises(TooManyDrafts, match="compiled with --drafts 2"):
        EngineCore(FakeRuntime(replace(FakeLimits(), max_drafts=2)), EngineOptions(3))


def test_a_failing_draft_step_ends_its_requests_and_then_the_engine() -> None:
    runtime = FakeRuntime(replace(FakeLimits(), max_drafts=2))
    core = EngineCore(runtime)
    for _ in range(2):
        answers = Answers(core)
        answers.submit(_submit("a", [1]))
        runtime.fail_drafts = True
        answers.finish()
        assert answers.ends == {"a": "engine_error"}
    core.handle(_submit("a", [1]))
    with pytest.raises(RuntimeError, match="fake device"):
        core.step()


def test_the_end_of_sequence_and_stop_ids_end_a_request() -> None:
    stream = generate([3, 1], 30)
    prompts = ([n, m] for n in range(VOCAB) for m in range(VOCAB))
    ending = next(p for p in prompts if EOS in generate(p, 4)[1:])
    answers = Answers(EngineCore(FakeRuntime()))
    answers.submit(_submit("stopped", [3, 1], 30, stop_ids=[stream[3]]))
    answers.submit(_submit("ended", ending, 30, ignore_eos=False))
    answers.submit(_submit("ignored", ending, 8))
    answers.finish()
    assert answers.ids("stopped") == stream[: stream.index(stream[3]) + 1]
    assert answers.ids("ended")[-1] == EOS
    assert EOS not in answers.ids("ended")[:-1]
    assert [answers.ends[n] for n in ("stopped", "ended", "ignored")] == ["stop", "stop", "length"]
    assert len(answers.ids("ignored")) == 8


def test_cancelling_frees_pages_of_running_and_waiting_requests() -> None:
    answers = Answers(EngineCore(FakeRuntime(replace(FakeLimits(), max_reqs=1))))
    answers.submit(_submit("running", [1] * 20, 30), _submit("waiting", [2] * 20, 30))
    answers.step()
    answers.cancel("running")
    answers.cancel("waiting")
    answers.cancel("unknown")
    assert answers.ends == {"running": "cancelled", "waiting": "cancelled"}
    answers.finish()


def test_a_failed_step_fails_its_requests_and_no_others() -> None:
    runtime = FakeRuntime(replace(FakeLimits(), max_reqs=1))
    answers = Answers(EngineCore(runtime))
    answers.submit(_submit("a", [1]), _submit("b", [2]))
    runtime.fail = True
    answers.step()
    runtime.fail = False
    answers.finish()
    assert answers.ends == {"a": "engine_error", "b": "length"}
    assert answers.ids("b") == generate([2], 5)


def test_an_engine_whose_every_step_fails_gives_up() -> None:
    runtime = FakeRuntime()
    core = EngineCore(runtime)
    runtime.fail = True
    for _ in range(2):
        core.handle(_submit("a", [1]))
        core.step()
    core.handle(_submit("a", [1]))
    with pytest.raises(RuntimeError, match="fake device"):
        core.step()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prompt": []}, "invalid_value"),
        ({"prompt": [VOCAB]}, "invalid_value"),
        ({"prompt": [-1]}, "invalid_value"),
        ({"max_tokens": 64}, "context_length_exceeded"),
        ({"top_logprobs": 21}, "invalid_value"),
    ],
)
def test_what_cannot_run_is_refused_by_the_engine_too(change: dict[str, object], code: str) -> None:
    answers = Answers(EngineCore(FakeRuntime()))
    answers.submit(msgspec.structs.replace(_submit("a", [1]), **change))
    assert answers.ends == {"a": code}


def test_the_warm_up_runs_a_prefill_and_a_decode_step() -> None:
    runtime = FakeRuntime()
    EngineCore(runtime).warm_up()
    assert [batch.entry for batch in runtime.batches] == ["extend", "decode"]


def test_a_failing_warm_up_is_an_error() -> None:
    runtime = FakeRuntime()
    runtime.fail = True
    with pytest.raises(RuntimeError, match="fake device"):
        EngineCore(runtime).warm_up()


def test_messages_survive_the_wire() -> None:
    commands = [_submit("a", [1, 2]), Cancel("b")]
    assert decode_commands(encode(commands)) == commands
    events = [
        Output(request="a", tokens=[TokenScore(1, -0.5, [(2, -1.0)])], finish="stop"),
        EngineCore(FakeRuntime()).info,
        Failed("a", "engine_error", "why"),
    ]
    assert decode_events(encode(events)) == events


_REQUESTS = st.fixed_dictionaries(
    {
        "prompt": st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40),
        "max_tokens": st.integers(0, 12),
        "score_prompt": st.booleans(),
        "top_logprobs": st.integers(0, 3),
        "temperature": st.sampled_from([0.0, 1.0]),
        "seed": st.integers(-(2**31), 2**31 - 1),
        "arrives": st.integers(0, 12),
        "leaves": st.none() | st.integers(0, 30),
    }
)
_LIMITS = st.builds(
    FakeLimits,
    max_tokens=st.integers(1, 20),
    max_reqs=st.integers(1, 5),
    num_pages=st.integers(15, 40),
    max_drafts=st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(limits=_LIMITS, requests=st.lists(_REQUESTS, min_size=1, max_size=7))
def test_no_traffic_leaks_pages_or_changes_answers(
    limits: FakeLimits, requests: list[dict[str, Any]]
) -> None:
    answers = Answers(EngineCore(FakeRuntime(limits)))
    fields = Submit.__struct_fields__
    for now in range(31):
        for name, request in enumerate(requests):
            if request["arrives"] == now:
                given = {k: v for k, v in request.items() if k in fields}
                answers.submit(msgspec.structs.replace(_submit(str(name), []), **given))
            if request["leaves"] == now:
                answers.cancel(str(name))
        answers.step()
    answers.finish()
    for name, request in enumerate(requests):
        expected = generate(
            request["prompt"],
            request["max_tokens"],
            request["temperature"],
            request["seed"],
        )
        got = answers.ids(str(name))
        assert got == expected[: len(got)]
        assert answers.ends[str(name)] in ("length", "cancelled")
        if answers.ends[str(name)] == "length":
            assert got == expected
            scored = len(request["prompt"]) - 1 if request["score_prompt"] else 0
            assert len(answers.prompt_scores[str(name)]) == scored
