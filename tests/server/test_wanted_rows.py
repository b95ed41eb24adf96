"""The engine asks for no row and no draft that could not be used, and for all that could.

Every step of every small request is held against a rule that knows only how many tokens a request
has, at least, when the step runs: each step that picks gives it one or more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import pytest
from fake_runtime import FakeLimits
from late_runtime import LateRuntime, LateTicket, Owner

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.request import Req

MAX_TOKENS = range(1, 9)
PROMPT = [5, 3, 7, 1, 2]
LIMITS = FakeLimits(max_tokens=4, max_context=32)
"""Prompts take two steps, so that one of them picks nothing."""


@dataclass
class Asked:
    """What the steps of one run asked for."""

    steps: int = 0
    draft_steps: int = 0
    verified: int = 0
    faults: list[str] = field(default_factory=list[str])


class Watched(LateRuntime):
    """Holds each plan against the rule when it is submitted."""

    core: EngineCore
    asked: Asked

    def submit(self, plan: StepPlan) -> LateTicket:
        """Check, then queue."""
        in_flight = list(self.unheard)
        ticket = super().submit(plan)
        wanted = [self._hold(plan, i, in_flight, ticket) for i in range(len(plan.seqs))]
        self.asked.steps += 1
        self.asked.draft_steps += plan.drafts > 0
        if plan.drafts != max(wanted):
            self.asked.faults.append(f"{plan.drafts} drafts, {wanted} are wanted: {plan}")
        return ticket

    def _hold(
        self, plan: StepPlan, number: int, in_flight: list[LateTicket], ticket: LateTicket
    ) -> int:
        """Check the rows of one sequence of the step; the drafts that it can use behind it."""
        owner = ticket.owners[number]
        req = self._req(owner)
        mine = [each for each in in_flight if owner in each.owners]
        picking = [each for each in mine if _picks(each.plan, each.owners.index(owner))]
        to_come = req.submit.max_tokens - (len(req.tokens) - len(PROMPT)) - len(picking)
        if not _picks(plan, number):
            # no draft is made, but the draft layer must see the rows if it ever runs
            return int(self.limits.max_drafts > 0 and to_come > 2)
        if plan.entry == "decode":
            drafts = mine[-1].plan.drafts if mine else len(req.drafts)
            rows = 1 + min(drafts, to_come - 1)
            self.asked.verified += rows - 1
            if plan.counts[number] != rows:
                self.asked.faults.append(f"{plan.counts[number]} rows, {rows} are wanted: {plan}")
        # this step gives a token, and the next one gives one that no draft stands for
        return max(0, min(self.limits.max_drafts, to_come - 2))

    def _req(self, owner: Owner) -> Req:
        return next(r for r in self.core.scheduler.running if r.submit.seed == owner.epoch)


def _picks(plan: StepPlan, number: int) -> bool:
    """Whether the last row of a sequence has logits."""
    last = sum(plan.counts[: number + 1]) - 1
    return any(first <= last < first + count for first, count in plan.logits)


def run(
    max_tokens: tuple[int, ...], drafts: int, depth: int, preempted_after: int | None = None
) -> Asked:
    """All steps of some requests at once; the first is preempted once behind so many steps."""
    limits = FakeLimits(max_tokens=LIMITS.max_tokens, max_context=32, max_drafts=drafts)
    runtime = Watched(limits, lambda seq: _holder(core, seq))
    runtime.asked = Asked()
    core = runtime.core = EngineCore(runtime, depth=depth)
    for number, count in enumerate(max_tokens):
        core.handle(
            Submit(
                request=str(number), prompt=PROMPT, max_tokens=count, seed=number, ignore_eos=True
            )
        )
    for number in range(200):
        if number == preempted_after and core.scheduler.running:
            core.scheduler.preempt(core.scheduler.running[0])
        core.step()
        if not core.has_work:
            break
    assert not core.has_work
    assert not runtime.wrong
    return runtime.asked


def _holder(core: EngineCore, seq: int) -> Owner:
    running = core.scheduler.running
    return next(Owner(r.name, r.submit.seed) for r in running if r.seq == seq)


@pytest.mark.parametrize(("drafts", "depth"), [*product(range(4), range(3))])
def test_a_request_alone_asks_for_what_it_can_use(drafts: int, depth: int) -> None:
    for count in MAX_TOKENS:
        asked = run((count,), drafts, depth)
        assert not asked.faults, (count, asked.faults)
        assert (asked.verified > 0) is (drafts > 0 and count > 2), count


@pytest.mark.parametrize(("drafts", "depth"), [*product(range(4), range(3))])
def test_neighbours_that_draft_make_no_rows_for_those_who_cannot(drafts: int, depth: int) -> None:
    for counts in product(MAX_TOKENS, (1, 2, 3, 8)):
        asked = run(counts, drafts, depth)
        assert not asked.faults, (counts, asked.faults)


@pytest.mark.parametrize(("drafts", "depth"), [*product(range(1, 4), range(3))])
def test_a_request_that_was_preempted_asks_for_what_it_can_still_use(
    drafts: int, depth: int
) -> None:
    for count, after in product(MAX_TOKENS, range(2, 9)):
        asked = run((count,), drafts, depth, after)
        assert not asked.faults, (count, after, asked.faults)
