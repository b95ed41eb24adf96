"""Any traffic over an engine whose steps run late, as a machine of Hypothesis.

Every answer is the request's answer alone, every request ends exactly once, no page is lost or
written while others may read it, nobody fails but those whose step did and the choices that wait
for them, nobody waits for whom there is room, and no prompt that has begun waits for ever. Prompts
begin alike, so that requests find one another's pages. A mutant is a subclass that makes another
core or runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import msgspec
from fake_runtime import EOS, VOCAB, FakeLimits, generate
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from late_runtime import LateRuntime, Owner
from share_trial import require_fair_share

from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.host_tier import HostTier
from lostwax.server.engine.loop import MAX_FAILED_STEPS, EngineCore
from lostwax.server.engine.messages import Cancel, Failed, Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.prefix_cache import PrefixCache
from lostwax.server.engine.request import Req
from lostwax.server.engine.scheduled_step import ScheduledStep
from lostwax.server.engine.scheduler import Scheduler
from lostwax.server.engine.waiting import MAX_PASSED

NAMES = ("a", "b", "c", "d", "e", "f")
"""Few, so that names come back."""
CHOICES = tuple(f"{name}-{i}" for name in NAMES for i in range(3))
"""What theirs are called."""


@dataclass(slots=True)
class _Asked:
    """A request, what it must answer, and what came."""

    submit: Submit
    want: list[int]
    choices: frozenset[Owner]
    """Those of its prompt: where one fails, those fail that wait for it to run the prompt."""
    got: list[int] = field(default_factory=list[int])
    num_scored: int = 0
    end: str | None = None


_LIMITS = st.builds(
    FakeLimits,
    max_tokens=st.integers(1, 12),
    max_reqs=st.integers(1, 4),
    num_pages=st.integers(6, 14),
    max_context=st.just(20),
)
_DEPTHS_AND_DRAFTS = [(depth, drafts) for depth in range(3) for drafts in (0, 1, 3)]
_STEMS = ([7] * 12, [7] * 4 + [9] * 8, [9] * 4 + [7] * 8)
"""Three pages each: some are equal under one prefix, some of equal tokens under another."""


def _begin_alike(stem: list[int], length: int, tail: list[int]) -> list[int]:
    return [*stem[:length], *tail][:12]


_PROMPTS = st.builds(
    _begin_alike,
    st.sampled_from(_STEMS),
    st.integers(0, 12),
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=5),
)
REQUESTS = st.builds(
    Submit,
    request=st.sampled_from(NAMES),
    prompt=_PROMPTS | st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12),
    max_tokens=st.integers(0, 8),
    temperature=st.sampled_from([0.0, 1.0]),
    score_prompt=st.booleans(),
    top_logprobs=st.sampled_from([0, 0, 2]),
    stop_ids=st.lists(st.integers(0, VOCAB - 1), max_size=2),
    priority=st.sampled_from([0, 0, 0, 1]),
)


class EngineMachine(RuleBasedStateMachine):
    """Adds, cancels, preempts, steps, lets steps run and fail, in any order.

    `num_host_pages` are a tier of the prefix cache, of which `max_moves` pages are copied a step
    beside those that cannot wait.
    """

    num_host_pages = 0
    max_moves = 1

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[Owner, _Asked] = {}
        self.live: dict[str, Owner] = {}
        self.log = FailureLog(lambda _: None)

    @initialize(
        limits=_LIMITS,
        shape=st.sampled_from(_DEPTHS_AND_DRAFTS),
        first=st.lists(REQUESTS, min_size=1, max_size=4),
    )
    def start(self, limits: FakeLimits, shape: tuple[int, int], first: list[Submit]) -> None:
        depth, drafts = shape
        self.runtime = self.make_runtime(
            replace(limits, max_drafts=drafts, num_host_pages=self.num_host_pages)
        )
        self.core = self.make_core(self.runtime, depth)
        setattr(self.core.scheduler, "schedule", self._watched(self.core.scheduler))  # noqa: B010
        tier = tier_of(self.core)
        if tier is not None:
            setattr(tier, "_max_moves", self.max_moves)  # noqa: B010
        for request in first:
            self.add(request)

    def _watched(self, scheduler: Scheduler) -> Callable[[], ScheduledStep | None]:
        """Its `schedule`, none of whose steps lets a prompt wait for ever."""
        schedule = scheduler.schedule

        def watched() -> ScheduledStep | None:
            step = schedule()
            if step is not None:
                require_fair_share(scheduler.running, step)
            return step

        return watched

    def make_runtime(self, limits: FakeLimits) -> LateRuntime:
        """The device under it."""
        return LateRuntime(limits, self.holder, self.lives, self.is_shared)

    def make_core(self, runtime: LateRuntime, depth: int) -> EngineCore:
        """The engine under test."""
        return EngineCore(runtime, log=self.log, depth=depth)

    @rule(request=REQUESTS, num_choices=st.sampled_from([1, 1, 2, 3]))
    def add(self, request: Submit, num_choices: int = 1) -> None:
        seed = len(self.asked)
        submit = msgspec.structs.replace(request, seed=seed, num_choices=num_choices)
        if self.live.keys() & {*submit.names}:
            return
        choices = {Owner(choice.request, choice.seed): choice for choice in submit.choices}
        for owner, choice in choices.items():
            self.asked[owner] = _Asked(choice, _alone(choice), frozenset(choices))
            self.live[owner.name] = owner
        self._take(self.core.handle(submit))

    @rule(name=st.sampled_from(NAMES) | st.sampled_from(CHOICES))
    def cancel(self, name: str) -> None:
        was_live = name in self.live
        events = self.core.handle(Cancel(name))
        assert len(events) == was_live
        self._take(events)

    @rule(number=st.integers(0, 3))
    def preempt(self, number: int) -> None:
        running = self.core.scheduler.running
        if number < len(running):
            self.core.scheduler.preempt(running[number])

    @rule(times=st.integers(1, 4))
    def step(self, times: int) -> None:
        for _ in range(times):
            scheduler = self.core.scheduler
            fitting, num_preempted = self._first_that_fits(), scheduler.num_preempted
            self._take(self.core.step())
            if scheduler.num_preempted == num_preempted:
                assert fitting not in scheduler.waiting, "it waits, and there is room"

    @precondition(lambda self: bool(self.runtime.queue))
    @rule(times=st.integers(1, 3))
    def run_some(self, times: int) -> None:
        for _ in range(min(times, len(self.runtime.queue))):
            self.runtime.run_next()

    @precondition(
        lambda self: self.runtime.fail_in is None and self.runtime.num_faults < MAX_FAILED_STEPS - 1
    )
    @rule(steps=st.integers(0, 4))
    def let_a_step_fail(self, steps: int) -> None:
        self.runtime.fail_in = steps

    @invariant()
    def no_page_is_lost_or_shared(self) -> None:
        if self.asked:  # it has started
            assert not self.runtime.wrong, self.runtime.wrong[0]
            self.core.scheduler.check_integrity()

    @invariant()
    def no_step_is_planned_behind_an_end(self) -> None:
        """Without drafts, each decode step in flight gives each of its requests one token."""
        if not self.asked or self.runtime.limits.max_drafts:
            return
        to_come = Counter(
            owner
            for ticket in self.runtime.unheard
            if ticket.plan.entry == "decode"
            for owner in ticket.owners
        )
        for owner in self.live.values():
            asked = self.asked[owner]
            assert len(asked.got) + to_come[owner] <= asked.submit.max_tokens, f"{owner} goes on"

    def teardown(self) -> None:
        if not self.asked:
            return
        self.runtime.fail_in = None
        for _ in range(1000):
            if not self.core.has_work:
                break
            self._take(self.core.step())
            self.core.scheduler.check_integrity()
        self.no_page_is_lost_or_shared()
        assert not self.core.has_work
        assert not self.runtime.queue
        assert not self.live, f"{sorted(self.live)} never ended"
        pages = self.core.scheduler.pages
        assert pages.num_free == pages.num_usable
        for owner, asked in self.asked.items():
            _check(owner, asked)
            if owner in self.runtime.struck:
                assert asked.end in ("engine_error", "cancelled"), f"{owner} outlived its step"
            elif asked.got or not self.runtime.struck & asked.choices:
                assert asked.end != "engine_error", f"{owner} failed, and no step of it did"

    def holder(self, seq: int) -> Owner:
        """Whose a sequence is now."""
        running = self.core.scheduler.running
        return next(Owner(r.name, r.submit.seed) for r in running if r.seq == seq)

    def is_shared(self, page: int) -> bool:
        """Whether several requests hold a page now, or the prefix cache does."""
        scheduler = self.core.scheduler
        num_holders = sum(page in req.pages for req in scheduler.running)
        return num_holders > 1 or page in scheduler.pages.kept

    def _first_that_fits(self) -> Req | None:
        """Who of those that wait can run now and may; it is looked up from scratch."""
        scheduler = self.core.scheduler
        if len(scheduler.running) == self.runtime.limits.max_reqs:
            return None
        waiting = sorted(scheduler.waiting, key=lambda req: req.rank)
        may_run = waiting if waiting and waiting[0].num_passed < MAX_PASSED else waiting[:1]
        if may_run and may_run[0].num_in_flight:
            return None
        return next((req for req in may_run if not req.num_in_flight and self._fits(req)), None)

    def _fits(self, req: Req) -> bool:
        """Whether its tokens' pages are free, and one for each that runs and still grows."""
        scheduler, limits = self.core.scheduler, self.runtime.limits
        size, pages = limits.page_tokens, scheduler.pages
        cache = cache_of(self.core)
        drafts = limits.max_drafts > 0 and req.wants_drafts
        found = cache.find(req.tokens, req.max_found // size, with_drafts=drafts).pages
        num_rows = min(len(req.tokens) + max(limits.max_drafts - 1, 0), req.max_rows)
        taken = -(-num_rows // size) - len(found) + sum(map(pages.is_idle, found))
        growing = [r for r in scheduler.running if len(r.pages) < -(-r.max_rows // size)]
        return taken + len(growing) <= pages.num_free

    def lives(self, owner: Owner) -> bool:
        """Whether the engine still knows a request."""
        req = self.core.scheduler.find(owner.name)
        return req is not None and req.submit.seed == owner.epoch

    def _take(self, events: list[Output | Failed]) -> None:
        for event in events:
            assert event.request in self.live, f"{event.request} goes on after its end"
            asked = self.asked[self.live[event.request]]
            if isinstance(event, Failed):
                asked.end = event.code
            else:
                asked.got += [score.token for score in event.tokens]
                asked.num_scored += len(event.prompt_scores)
                asked.end = event.finish
            if asked.end is not None:
                del self.live[event.request]


def cache_of(core: EngineCore) -> PrefixCache:
    """What finds a core's prefixes."""
    return getattr(getattr(core.scheduler, "_holdings"), "_cache")  # noqa: B009


def tier_of(core: EngineCore) -> HostTier | None:
    """What host memory takes in of a core's prefix cache."""
    return core.scheduler.host_tier


class StallMachine(EngineMachine):
    """As it is served: prompts may not stall answers, whose rows run in prefill steps, too."""

    def make_core(self, runtime: LateRuntime, depth: int) -> EngineCore:
        """Each look at the clock takes a second."""
        options, clock = EngineOptions(max_stall=3.0), count()
        return EngineCore(runtime, options, self.log, depth, clock=lambda: float(next(clock)))


def _alone(submit: Submit) -> list[int]:
    """A request's whole answer, the token that ends it included."""
    tokens = generate(submit.prompt, submit.max_tokens, submit.temperature, submit.seed)
    ends = [i for i, token in enumerate(tokens) if token == EOS or token in submit.stop_ids]
    return tokens[: ends[0] + 1] if ends else tokens


def _check(owner: Owner, asked: _Asked) -> None:
    assert asked.got == asked.want[: len(asked.got)], f"{owner}: {asked}"
    assert asked.end in ("stop", "length", "cancelled", "engine_error"), f"{owner}: {asked}"
    if asked.end in ("stop", "length"):
        assert asked.got == asked.want, f"{owner}: {asked}"
        scored = len(asked.submit.prompt) - 1 if asked.submit.score_prompt else 0
        assert asked.num_scored == scored, f"{owner}: {asked}"
        is_stopped = bool(asked.want) and (asked.want[-1] in (EOS, *asked.submit.stop_ids))
        assert asked.end == ("stop" if is_stopped else "length"), f"{owner}: {asked}"
