"""Answers whose prompts are found in the cache, on a compiled model: those of a cold cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import msgspec
import pytest
import torch
from drafting_models import PAGE, answers, cached_rows
from small import SMALL
from small_fixtures import Compiled

from lostwax.backends.runtime.load import Runtime, load
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.pages import PageAllocator
from lostwax.server.engine.request import Req
from lostwax.server.engine.runtime import Limits, Ticket

COUNT = 6
FILLER = 0xA5
STEM = [7 * i % 61 for i in range(70)]


def _greedy(seed: int) -> list[Submit]:
    """Prompts of two stems, longer than index_topk 32, some of them equal, one without drafts."""
    rng = random.Random(seed)
    stems = [[rng.randrange(SMALL["vocab_size"]) for _ in range(70)] for _ in range(2)]
    submits: list[Submit] = []
    for i in range(COUNT):
        tail = [rng.randrange(SMALL["vocab_size"]) for _ in range(rng.randrange(1, 20))]
        prompt = [*stems[i % 2][: rng.choice((16, 48, 70))], *tail]
        if i >= COUNT - 2:
            prompt = submits[i - 2].prompt
        max_tokens = rng.choice((2, 8, 16))
        submits.append(
            Submit(request=f"r{i}", prompt=prompt, max_tokens=max_tokens, ignore_eos=True)
        )
    return submits


def _sampled(seed: int) -> list[Submit]:
    return [
        msgspec.structs.replace(submit, temperature=1.0, seed=number, top_p=0.9)
        for number, submit in enumerate(_greedy(seed))
    ]


def _cold(runtime: Runtime, submits: list[Submit], drafts: int) -> dict[str, list[int]]:
    """Each answer by an engine of its own, without a cache."""
    found: dict[str, list[int]] = {}
    for submit in submits:
        core = EngineCore(runtime, EngineOptions(drafts, prefix_cache=False))
        assert core.handle(submit) == []
        tokens = found[submit.request] = []
        while core.has_work:
            for event in core.step():
                assert not isinstance(event, Failed), event
                assert event.cached_tokens == 0
                tokens += [score.token for score in event.tokens]
    return found


@pytest.mark.parametrize(
    ("model", "drafts", "ask"),
    [
        ("random_model", 0, _sampled),
        ("random_model", 3, _greedy),
        ("good_drafts", 3, _greedy),
        ("good_drafts", 3, _sampled),
    ],
)
def test_a_warm_cache_changes_no_token(
    model: str, drafts: int, ask: Callable[[int], list[Submit]], request: pytest.FixtureRequest
) -> None:
    runtime: Runtime = request.getfixturevalue(model)
    submits = ask(3)
    want = _cold(runtime, submits, drafts)
    num_found = 0
    core = EngineCore(runtime, EngineOptions(drafts))
    for submit in submits:
        assert core.handle(submit) == []
        tokens: list[int] = []
        while core.has_work:
            for event in core.step():
                assert not isinstance(event, Failed), event
                tokens += [score.token for score in event.tokens]
                num_found += event.cached_tokens if event.finish else 0
            core.scheduler.check_integrity()
        assert tokens == want[submit.request], submit.request
    assert num_found > 60
    if drafts:
        assert core.drafting.num_drafted > 0


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("drafts", [0, 3])
def test_neighbours_that_share_pages_change_no_token(
    good_drafts: Runtime, drafts: int, depth: int
) -> None:
    """All at once, over half the pages, one of them preempted now and then."""
    submits = _sampled(5)
    numbers = random.Random(drafts)
    reqs = {"preempted": 0, "found": 0}

    def disturb(core: EngineCore) -> None:
        running = core.scheduler.running
        reqs["found"] += sum(req.num_found for req in running)
        if running and numbers.random() < 0.25:
            reqs["preempted"] += 1
            core.scheduler.preempt(numbers.choice(running))

    found = answers(good_drafts, submits, drafts, depth, disturb)
    assert found.tokens == _cold(good_drafts, submits, drafts)
    assert reqs["preempted"] > 1
    assert reqs["found"] > 0


@dataclass(frozen=True, slots=True)
class _FewPages:
    """A runtime whose engine may use no more pages than one request needs."""

    runtime: Runtime
    overlaps = False
    pays_by_row = False

    @property
    def limits(self) -> Limits:
        limits = self.runtime.limits
        return msgspec.structs.replace(limits, num_pages=1 + limits.max_context // PAGE)

    @property
    def facts(self) -> ModelFacts:
        return self.runtime.facts

    def submit(self, plan: StepPlan) -> Ticket:
        return self.runtime.submit(plan)


def test_pages_that_must_give_way_change_no_token(good_drafts: Runtime) -> None:
    submits = _greedy(7)
    core = EngineCore(_FewPages(good_drafts), EngineOptions(3))
    tokens: dict[str, list[int]] = {submit.request: [] for submit in submits}
    num_found = 0
    with patch.object(PageAllocator, "drop", autospec=True, side_effect=PageAllocator.drop) as drop:
        for submit in submits * 2:
            tokens[submit.request].clear()
            assert core.handle(submit) == []
            while core.has_work:
                for event in core.step():
                    assert not isinstance(event, Failed), event
                    tokens[event.request] += [score.token for score in event.tokens]
                    num_found += event.cached_tokens if event.finish else 0
                core.scheduler.check_integrity()
    assert tokens == _cold(good_drafts, submits, 3)
    assert num_found > 60
    assert drop.call_count > 5


def _halfway(core: EngineCore, submit: Submit) -> Req:
    """The request, still running."""
    assert core.handle(submit) == []
    (req,) = core.scheduler.waiting
    while req.num_output < submit.max_tokens - 4:
        core.step()
    return req


def test_rows_behind_what_was_found_are_those_of_a_cold_cache(good_drafts: Runtime) -> None:
    """Drafts change no token, so that only the rows tell whether the MTP layer's were all there."""
    before, submit = (
        Submit(request=name, prompt=prompt, max_tokens=40, ignore_eos=True)
        for name, prompt in {"before": STEM, "after": [*STEM, 5, 4, 3, 2, 1]}.items()
    )
    once = msgspec.structs.replace(before, request="once", max_tokens=1)
    rows: dict[str, dict[tuple[str, int], torch.Tensor]] = {}
    for way, earlier in {"cold": [], "warm": [before], "warm, without drafts": [once]}.items():
        for buffer in good_drafts.memory.planes.values():
            buffer.fill(FILLER)
        core = EngineCore(good_drafts, EngineOptions(3))
        for each in earlier:
            core.handle(each)
            while core.has_work:
                core.step()
        req = _halfway(core, submit)
        assert req.num_found == (len(STEM) // PAGE * PAGE if way == "warm" else 0), way
        rows[way] = cached_rows(good_drafts, req.pages, len(STEM) + 30)
    for way in ("warm", "warm, without drafts"):
        for plane, want in rows["cold"].items():
            assert torch.equal(rows[way][plane], want), (way, plane)


def test_on_an_artifact_that_is_not_batch_invariant_greedy_answers_are_equal_too(
    small_artifact: Compiled,
) -> None:
    """fp32: what chunks and neighbours change of a row is far below what a pick asks."""
    runtime = load(small_artifact.artifact, checkpoint=small_artifact.checkpoint, num_pages=30)
    prompt = [7 * i % 61 for i in range(200)]
    submits = [
        Submit(request=f"r{n}", prompt=prompt[: 200 - n], max_tokens=9, ignore_eos=True)
        for n in (0, 0, 5, 60)
    ]
    core = EngineCore(runtime)
    for submit, found in zip(submits, (0, 192, 192, 128), strict=True):
        want = _cold(runtime, [submit], 0)[submit.request]
        assert core.handle(submit) == []
        tokens: list[int] = []
        while core.has_work:
            for event in core.step():
                assert not isinstance(event, Failed), event
                assert event.cached_tokens == found
                tokens += [score.token for score in event.tokens]
        assert tokens == want
