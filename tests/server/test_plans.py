"""What a plan says, and how little: kilobytes at any context, pages only where they change."""

from __future__ import annotations

import msgspec
import pytest
from fake_runtime import FakeLimits

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.options import PLAIN, EngineOptions
from lostwax.server.engine.request import Req
from lostwax.server.engine.scheduled_step import ScheduledStep
from lostwax.server.engine.scheduler import Scheduler
from lostwax.server.engine.step import plan_step

REQS, LONG = 128, 150_000
TOKEN = 129_000
"""An id that takes as many bytes as any."""
MAX_BYTES = 8192


def _decoding(context: int, drafts: int = 0) -> tuple[Scheduler, StepPlan]:
    """128 requests whose prompts have run, and the plan of the step in which they entered."""
    limits = FakeLimits(
        max_tokens=REQS, max_reqs=REQS, max_context=160_000, page_tokens=64, num_pages=400_000,
        max_drafts=drafts,
    )  # fmt: skip
    scheduler = Scheduler(limits, EngineOptions(drafts))
    prompt = [TOKEN] * context
    for i in range(REQS):
        req = Req(Submit(request=f"r{i}", prompt=prompt, max_tokens=500))
        req.num_cached = context - 1  # as if found in a cache
        scheduler.add(req)
    step, plan = _next(scheduler)
    for chunk in step.chunks:
        chunk.req.submitted(chunk, step.drafts)
        chunk.req.came_back(chunk)
        chunk.req.num_cached += 1
        chunk.req.tokens.append(TOKEN)
        chunk.req.drafts = [TOKEN] * drafts
    return scheduler, plan


def _next(scheduler: Scheduler) -> tuple[ScheduledStep, StepPlan]:
    step = scheduler.schedule()
    assert step is not None
    return step, plan_step(step)


def _bytes(plan: StepPlan) -> int:
    return len(msgspec.msgpack.encode(plan))


@pytest.mark.parametrize("drafts", [0, 3])
def test_a_decode_step_of_many_long_requests_is_a_few_kilobytes(drafts: int) -> None:
    scheduler, first = _decoding(LONG, drafts)
    assert [len(enter.pages) for enter in first.entering] == [-(-LONG // 64)] * REQS
    _, plan = _next(scheduler)
    assert plan.facts.num_reqs == REQS
    assert plan.facts.total_q == REQS * (1 + drafts)
    assert plan.entering == () == plan.new_pages
    assert _bytes(plan) <= MAX_BYTES < _bytes(first)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=StepPlan) == plan
    assert plan.logits == ((0, REQS * (1 + drafts)),)
    assert plan.tokens == ()


def test_a_plan_does_not_grow_with_the_context() -> None:
    sizes: list[int] = []
    for context in (70_000, LONG):  # positions of as many bytes
        scheduler, _ = _decoding(context)
        sizes.append(_bytes(_next(scheduler)[1]))
    assert sizes[0] == sizes[1]


def test_a_request_enters_with_all_that_its_rows_need_and_once() -> None:
    scheduler = Scheduler(FakeLimits(max_tokens=4), PLAIN)
    submit = Submit(
        request="a", prompt=[5, 6, 7, 8, 9, 10], max_tokens=3, temperature=0.5, top_p=0.75,
        seed=2**31 + 1, score_prompt=True,
    )  # fmt: skip
    scheduler.add(Req(submit))
    step, plan = _next(scheduler)
    (enter,) = plan.entering
    assert (enter.seq, enter.length, enter.limit, enter.num_prompt) == (1, 0, 8, 6)
    assert (enter.temperature, enter.top_p, enter.seed) == (0.5, 0.75, 1 - 2**31)
    assert len(enter.pages) == 2
    assert (plan.seqs, plan.counts, plan.ends, plan.tokens) == ((1,), (4,), (4,), (5, 6, 7, 8))
    assert (plan.logits, plan.scored, plan.targets) == (((0, 4),), ((0, 4),), (6, 7, 8, 9))
    (chunk,) = step.chunks
    chunk.req.submitted(chunk, 0)
    _, plan = _next(scheduler)
    assert plan.entering == ()
    assert (plan.counts, plan.ends, plan.tokens) == ((2,), (6,), (9, 10))
    # The last row's pick is the first output: it has no target.
    assert (plan.logits, plan.scored, plan.targets) == (((0, 2),), ((0, 1),), (10,))


def test_rows_of_the_state_are_given_out_lowest_first_and_come_back() -> None:
    scheduler = Scheduler(FakeLimits(max_reqs=2), PLAIN)
    reqs = [Req(Submit(request=name, prompt=[1], max_tokens=1)) for name in "abc"]
    for req in reqs:
        scheduler.add(req)
    scheduler.schedule()
    assert [req.seq for req in reqs] == [1, 2, 0]
    scheduler.remove(reqs[0])
    scheduler.schedule()
    assert [req.seq for req in reqs] == [0, 2, 1]
    scheduler.check_integrity()
