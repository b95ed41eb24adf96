"""`top_p`, `top_k`, `min_p` through the engine on a real artifact: which ids, and whose.

The artifact is `--batch-invariant`, so that neighbours may not change a single bit of an answer.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file, save_file
from small import SMALL, options
from tiny import write_config

from lostwax.backends.compile import compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import Runtime, load
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit, TokenScore

SIZES = Sizes(max_context=192, max_tokens=48, max_reqs=4, max_score_rows=8)
PROMPT = [7 * i % 61 for i in range(70)]
"""More than a chunk, and than index_topk 32."""
BASE = Submit(request="", prompt=PROMPT, max_tokens=12, ignore_eos=True)
GREEDY = msgspec.structs.replace(BASE, request="greedy")
WARM = msgspec.structs.replace(BASE, request="warm", temperature=1.0, seed=3)
NUCLEUS = msgspec.structs.replace(WARM, request="nucleus", top_p=0.5)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A model so sure of itself that 20 ids, which is what a client is told, hold a nucleus."""
    folder = tmp_path_factory.mktemp("nucleus")
    checkpoint, artifact = folder / "checkpoint", folder / "artifact"
    new_checkpoint(write_config(folder, SMALL), checkpoint, seed=0, format="fp32")
    (file,) = checkpoint.glob("*.safetensors")
    tensors = load_file(file)
    tensors["lm_head.weight"] *= 5
    save_file(tensors, file)
    c = capture(open_checkpoint(checkpoint))
    chosen = options(sizes=SIZES, batch_invariant=True)
    compile_module(c.module, c.facts, c.weights, "cpu", artifact, chosen)
    return load(artifact, checkpoint=checkpoint, num_pages=30, threads=1)


def answers(runtime: Runtime, *submits: Submit) -> dict[str, list[TokenScore]]:
    """Every token with its log-probability, by request, of requests that run together."""
    core = EngineCore(runtime)
    found: dict[str, list[TokenScore]] = {s.request: [] for s in submits}
    for submit in submits:
        assert core.handle(submit) == []
    while core.has_work:
        for event in core.step():
            assert not isinstance(event, Failed), event
            found[event.request] += event.tokens
    return found


def ids(scores: list[TokenScore]) -> list[int]:
    return [score.token for score in scores]


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_a_nucleus_of_one_id_gives_the_greedy_answer(runtime: Runtime, seed: int) -> None:
    tiny = msgspec.structs.replace(WARM, request="tiny", seed=seed, top_p=1e-6)
    assert answers(runtime, tiny)["tiny"] == answers(runtime, GREEDY)["greedy"]
    warm = msgspec.structs.replace(WARM, seed=seed)
    assert ids(answers(runtime, warm)["warm"]) != ids(answers(runtime, GREEDY)["greedy"])


def nucleus(score: TokenScore, top_p: float) -> set[int]:
    """The ids of the nucleus at temperature 1, which the 20 likeliest must hold."""
    inside, mass = set[int](), 0.0
    for token, logprob in score.top:
        inside.add(token)
        mass += math.exp(logprob)
        if mass >= top_p:
            return inside
    raise AssertionError(f"the {len(score.top)} likeliest of {SMALL['vocab_size']} have {mass}")


def outside(scores: list[TokenScore], top_p: float) -> int:
    return sum(score.token not in nucleus(score, top_p) for score in scores)


@pytest.mark.parametrize("top_p", [0.3, 0.9])
def test_only_ids_of_the_nucleus_are_sampled(runtime: Runtime, top_p: float) -> None:
    num_outside = 0
    for seed in range(6):
        told = {"seed": seed, "top_logprobs": 20, "max_tokens": 40}
        narrow, wide = (
            msgspec.structs.replace(WARM, top_p=share, **told) for share in (top_p, 1.0)
        )
        assert outside(answers(runtime, narrow)["warm"], top_p) == 0
        num_outside += outside(answers(runtime, wide)["warm"], top_p)
    assert num_outside > 0, "without a nucleus the same noise picks others too"


@pytest.mark.parametrize("asked", [{"top_k": 3}, {"min_p": 0.3}], ids=str)
def test_only_ids_that_are_asked_for_are_sampled(runtime: Runtime, asked: dict[str, Any]) -> None:
    num_outside = 0
    for seed in range(6):
        told = {"seed": seed, "top_logprobs": 20, "max_tokens": 40}
        for wanted in (asked, {}):
            found = answers(runtime, msgspec.structs.replace(WARM, **wanted, **told))["warm"]
            over = [not _is_asked_for(score, **asked) for score in found]
            assert not wanted or not any(over)
            num_outside += sum(over)
    assert num_outside > 0, "without a bound the same noise picks others too"


def _is_asked_for(score: TokenScore, top_k: int = 20, min_p: float = 0.0) -> bool:
    least = score.top[0][1] + math.log(min_p) if min_p else -math.inf
    return score.token in [i for i, _ in score.top[:top_k]] and score.logprob >= least - 1e-4


def test_a_bias_moves_ids_and_no_log_probability(runtime: Runtime) -> None:
    told = {"top_logprobs": 20, "max_tokens": 1}
    (plain,) = answers(runtime, msgspec.structs.replace(GREEDY, **told))["greedy"]
    (first, best), (second, next_best) = plain.top[:2]
    for bias, want in (
        ({second: best - next_best + 0.01}, second),
        ({second: best - next_best - 0.01}, first),
        ({first: -100.0}, second),
        ({9: 100.0}, 9),
    ):
        asked = msgspec.structs.replace(GREEDY, logit_bias=bias, **told)
        (found,) = answers(runtime, asked)["greedy"]
        assert found.token == want
        assert found.top == plain.top
        assert found.logprob == dict(plain.top).get(want, found.logprob)


def test_penalties_are_those_of_what_has_come(runtime: Runtime) -> None:
    """Each token must be the likeliest once the tokens before it are held against it."""
    told = {"top_logprobs": 20, "max_tokens": 30}
    plain = ids(answers(runtime, msgspec.structs.replace(GREEDY, **told))["greedy"])
    for asked in ({"frequency_penalty": 1.5}, {"presence_penalty": 2.0}):
        found = answers(runtime, msgspec.structs.replace(GREEDY, **told, **asked))["greedy"]
        said = ids(found)
        assert said != plain
        assert said[0] == plain[0], "the prompt is nothing that was said"
        for number, score in enumerate(found):
            less = {
                token: logprob
                - asked.get("frequency_penalty", 0.0) * said[:number].count(token)
                - asked.get("presence_penalty", 0.0) * (token in said[:number])
                for token, logprob in score.top
            }
            assert less.get(score.token, -9e9) >= max(less.values()) - 1e-4
    repeated = msgspec.structs.replace(GREEDY, repetition_penalty=2.0, **told)
    assert ids(answers(runtime, repeated)["greedy"]) != plain


def test_an_answer_does_not_end_before_it_may(runtime: Runtime) -> None:
    (end, *_) = ids(answers(runtime, GREEDY)["greedy"])
    stopped = msgspec.structs.replace(GREEDY, stop_ids=[end])
    assert ids(answers(runtime, stopped)["greedy"]) == [end]
    for least in (1, 5):
        held = msgspec.structs.replace(stopped, held_ids=[end], min_tokens=least)
        found = ids(answers(runtime, held)["greedy"])
        assert end not in found[:least]
        assert len(found) > least
        biased = msgspec.structs.replace(held, logit_bias={end: 100.0})
        assert ids(answers(runtime, biased)["greedy"])[least:] == [end]


def test_log_probabilities_are_those_of_the_whole_distribution(runtime: Runtime) -> None:
    tiny, warm = (
        msgspec.structs.replace(WARM, top_p=top_p, top_logprobs=20) for top_p in (1e-6, 1.0)
    )
    (narrow, wide) = (answers(runtime, each)["warm"] for each in (tiny, warm))
    assert narrow[0].top == wide[0].top, "both follow the same prompt"
    assert all((score.token, score.logprob) == score.top[0] for score in narrow)
    assert min(score.logprob for score in narrow) < -0.1, "an id alone in its nucleus is no more"


def test_neighbours_change_no_bit_of_an_answer(runtime: Runtime) -> None:
    """Greedy, sampled and nucleus requests, of which some have logits scored."""
    short = msgspec.structs.replace(NUCLEUS, request="short", prompt=PROMPT[:5], temperature=0.7)
    scored = msgspec.structs.replace(WARM, request="scored", seed=9, top_p=0.9, top_logprobs=3)
    few = msgspec.structs.replace(WARM, request="few", top_k=4, min_p=0.1)
    biased = msgspec.structs.replace(
        WARM, request="biased", logit_bias={3: 2.5, 9: -4.0}, held_ids=[5], min_tokens=4
    )
    rare = msgspec.structs.replace(
        WARM, request="rare", repetition_penalty=1.4, frequency_penalty=0.6, presence_penalty=-0.2
    )
    submits = (GREEDY, WARM, NUCLEUS, short, scored, few, biased, rare)
    alone = {s.request: answers(runtime, s)[s.request] for s in submits}
    assert answers(runtime, *submits) == alone
    assert answers(runtime, *reversed(submits)) == alone
    assert answers(runtime, GREEDY, WARM) == {n: alone[n] for n in ("greedy", "warm")}
    assert ids(alone["nucleus"]) != ids(alone["warm"])
