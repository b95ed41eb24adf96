"""The engine's step: schedule, submit, commit what is done. Knows no socket, HTTP or device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from lostwax.ir.contract.step import MAX_RANKED
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.capacity import capacity, host_capacity
from lostwax.server.engine.commit import Drafting, commit
from lostwax.server.engine.constrained import Constrained
from lostwax.server.engine.deadlines import Deadlines
from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.messages import (
    MAX_CHOICES,
    TIMED_OUT,
    Cancel,
    Command,
    EngineInfo,
    Failed,
    Output,
    Stats,
    Submit,
)
from lostwax.server.engine.options import PLAIN, EngineOptions
from lostwax.server.engine.request import Req
from lostwax.server.engine.runtime import Runtime, Ticket
from lostwax.server.engine.scheduled_step import ScheduledStep
from lostwax.server.engine.scheduler import Scheduler
from lostwax.server.engine.stats import StepCounts, stats_of
from lostwax.server.engine.step import plan_step
from lostwax.server.engine.warm_up import (
    require_none_failed,
    run_every_kind,
    run_prompt_beside_answer,
)
from lostwax.server.grammar.grammars import Grammars

MAX_FAILED_STEPS = 3
"""Failed steps in a row after which the device, not a request, is taken to be at fault."""


GRAMMAR_WAIT_S = 0.005
"""Where nothing is to be done but to wait for a grammar: then new requests are looked for."""


class TooManyDrafts(ValueError):
    """More drafts are asked for than the artifact's programs verify."""


MAX_DEPTH = 2
"""Steps in flight between two calls: with one the device never waits for the host; more only wait
longer for a request's end."""


class TooDeep(ValueError):
    """More steps are to be in flight than serve any purpose."""


class EngineBroken(RuntimeError):
    """Steps failed one after another; what they raised is in the log."""


class _InFlight(msgspec.Struct, frozen=True):
    """A step that is submitted and not committed."""

    plan: ScheduledStep
    told: StepPlan
    """The same as the runtime was told it."""
    ticket: Ticket


class EngineCore:
    """Holds a runtime and its scheduler. Callers use it from one thread at a time.

    `log` is told what a step raised. At most `depth` steps stay in flight between two calls of
    `step`. `grammars` follows those of requests. `clock` gives seconds.
    """

    def __init__(
        self,
        runtime: Runtime,
        options: EngineOptions = PLAIN,
        log: FailureLog | None = None,
        depth: int = 0,
        *,
        grammars: Grammars | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        most, drafts = runtime.limits.max_drafts, options.max_drafts
        if drafts is not None and not 0 <= drafts <= most:
            raise TooManyDrafts(
                f"--drafts {drafts}: this artifact was compiled with --drafts {most}; recompile it,"
                f" or ask for 0 to {most}"
            )
        self._runtime = runtime
        if not 0 <= depth <= MAX_DEPTH:
            raise TooDeep(f"depth {depth}: ask for 0 to {MAX_DEPTH} steps in flight")
        self._depth = depth
        self._in_flight: deque[_InFlight] = deque()
        self.scheduler = Scheduler(runtime.limits, options, by_row=runtime.pays_by_row)
        self._clock = clock
        self._deadlines = Deadlines()
        self._constrained = Constrained(grammars, runtime.facts.eos_token_ids)
        self._oldest_began_s = 0.0
        """When the oldest step in flight began to run: submitted, and the one before it done."""
        self.drafting = Drafting()
        self._counts = StepCounts()
        self._num_failed_steps = 0
        self._is_warming_up = False
        self._log = log or FailureLog()

    @property
    def info(self) -> EngineInfo:
        """What a gateway must know to check requests."""
        limits, facts = self._runtime.limits, self._runtime.facts
        return EngineInfo(
            model=facts.name,
            vocab_size=limits.vocab_size,
            max_context=self.scheduler.max_context,
            max_reqs=limits.max_reqs,
            max_top_logprobs=MAX_RANKED,
            eos_token_ids=facts.eos_token_ids,
            chat_encoding=facts.chat_encoding,
            shares_prompts=self.scheduler.shares_prompts,
        )

    @property
    def capacity(self) -> str:
        """What it can hold, in words."""
        scheduler, page_tokens = self.scheduler, self._runtime.limits.page_tokens
        held = scheduler.pages.num_usable * page_tokens
        said = capacity(held, page_tokens, scheduler.max_context, scheduler.max_running)
        tier = scheduler.host_tier
        return said + host_capacity(tier.num_slots * page_tokens if tier else 0)

    @property
    def has_work(self) -> bool:
        """Whether a step would run or commit something."""
        waits = self._constrained.is_waiting
        return bool(self._in_flight) or self.scheduler.has_work or waits

    @property
    def is_settling(self) -> bool:
        """Whether a step would, beside all work, hear what grammars' processes hold."""
        return self._constrained.is_used

    @property
    def stats(self) -> Stats:
        """What it does, since the warm-up."""
        grammars = self._constrained.stats
        return stats_of(self.scheduler, self._counts, self.drafting, grammars)

    def handle(self, command: Command) -> list[Output | Failed]:
        """Take a command between steps."""
        match command:
            case Submit():
                refusal = self._refusal(command)
                if refusal is not None:
                    is_countable = 1 <= command.num_choices <= MAX_CHOICES
                    names = command.names if is_countable else [command.request]
                    return [msgspec.structs.replace(refusal, request=name) for name in names]
                reqs = [Req(choice) for choice in command.choices]
                if command.grammar is None:
                    self.scheduler.add(*reqs)
                else:
                    self._constrained.hold(reqs)
                if command.timeout_s is not None:
                    end_s = self._clock() + command.timeout_s
                    for req in reqs:
                        self._deadlines.add(req, end_s)
                return []
            case Cancel(request=name):
                req = self._find(name)
                if req is None:
                    return []
                self._remove(req)
                cached_tokens = req.cached_tokens or 0
                return [Output(request=name, finish="cancelled", cached_tokens=cached_tokens)]

    def step(self) -> list[Output | Failed]:
        """Submit the next step, if any can run, commit what is done, and return its events.

        Waits for the oldest step where nothing can be submitted or more than `depth` are in flight.
        """
        events: list[Output | Failed] = []
        if self._deadlines:
            events += self._end_overdue()
        if self._constrained.is_used:
            events += self._settle()
        plan = self.scheduler.schedule()
        if plan is not None:
            events += self._submit(plan)
            events += self._bring_masks()
        must_wait = plan is None or len(self._in_flight) > self._depth
        while self._in_flight and (must_wait or self._in_flight[0].ticket.done):
            events += self._commit_oldest()
            must_wait = False
        return events

    def _submit(self, plan: ScheduledStep) -> list[Output | Failed]:
        if not self._in_flight:
            self._oldest_began_s = self._clock()
        try:
            is_free = not self._constrained.is_used
            told = plan_step(plan, () if is_free else self._constrained.masked_rows(plan))
            ticket = self._runtime.submit(told)
        except Exception as error:  # nothing has changed: the steps in flight go on
            return self._fail([plan], error)
        self._in_flight.append(_InFlight(plan, told, ticket))
        for chunk in plan.chunks:
            chunk.req.submitted(chunk, plan.drafts)
        return []

    def _settle(self) -> list[Output | Failed]:
        """Let those begin whose grammars can be followed by now."""
        is_idle = not self._in_flight and not self.scheduler.has_work
        ready, failed = self._constrained.settle(GRAMMAR_WAIT_S if is_idle else 0.0)
        for reqs in ready:
            self.scheduler.add(*reqs)
        told = [Output(request=req.name, is_followed=True) for reqs in ready for req in reqs]
        return [*told, *failed]

    def _bring_masks(self) -> list[Output | Failed]:
        """Finish the newest step, if it waits for masks: once what it is to follow is committed."""
        events: list[Output | Failed] = []
        if not self._in_flight or not self._in_flight[-1].told.masked:
            return events
        newest = self._in_flight[-1]
        while len(self._in_flight) > 1 and self._constrained.is_behind(newest.plan):
            events += self._commit_oldest()
        if not self._in_flight:
            return events  # one before it failed
        masks, failed = self._constrained.masks(newest.plan)
        try:
            newest.ticket.finish(masks)
        except Exception as error:
            return events + self._fail([newest.plan, *self._abandon()], error)
        for each in failed:
            req = self.scheduler.find(each.request)
            assert req is not None, f"{each.request} ended twice"
            self.scheduler.remove(req)
        return [*events, *failed]

    def _find(self, name: str) -> Req | None:
        return self.scheduler.find(name) or self._constrained.find(name)

    def _remove(self, req: Req) -> None:
        if not self._constrained.remove(req):
            self.scheduler.remove(req)

    def _commit_oldest(self) -> list[Output | Failed]:
        """Wait for the oldest step in flight and commit it; a failed one fails those behind it."""
        oldest = self._in_flight.popleft()
        plan = oldest.plan
        for chunk in plan.chunks:
            chunk.req.came_back(chunk)
        try:
            result = oldest.ticket.result()
            done_s = self._clock()
            seconds, self._oldest_began_s = done_s - self._oldest_began_s, done_s
            eos_token_ids = self._runtime.facts.eos_token_ids
            events = commit(plan, oldest.told, result, eos_token_ids, self.drafting)
            events += self._failed_with(events)
            self.scheduler.note_times(plan, seconds)
            if not self._is_warming_up:
                self._counts.note(oldest.told, seconds, plan.num_answers)
                self.scheduler.note_drafts(plan, events, seconds)
            self.scheduler.enter_pages(plan)
            self._retire(events)
        except Exception as error:
            return self._fail([plan, *self._abandon()], error)
        self._num_failed_steps = 0
        return events

    def _end_overdue(self) -> list[Failed]:
        """End the requests whose time is up: what of them is in flight is used by nobody."""
        failed: list[Failed] = []
        for req in self._deadlines.overdue(self._clock()):
            self._remove(req)
            message = f"the request had not ended {req.submit.timeout_s:g} s after it began to wait"
            failed.append(Failed(req.name, TIMED_OUT, message))
        return failed

    def _abandon(self) -> list[ScheduledStep]:
        """Wait for all steps in flight and use none of their results; return their plans."""
        plans = [each.plan for each in self._in_flight]
        while self._in_flight:
            each = self._in_flight.popleft()
            for chunk in each.plan.chunks:
                chunk.req.came_back(chunk)
            if each.told.masked:
                with suppress(Exception):  # it was finished before, or has failed
                    each.ticket.finish(self._constrained.no_masks(each.told.num_masked))
            with suppress(Exception):  # it follows from the failure that is logged
                each.ticket.result()
        return plans

    def _fail(self, plans: Sequence[ScheduledStep], error: Exception) -> list[Output | Failed]:
        """End the plans' requests that still run, or raise where the device is at fault.

        The first plan's step is the one that failed.
        """
        if self._is_warming_up:
            raise error
        self.scheduler.forget_host_pages()
        reqs = {c.req.name: c.req for plan in plans for c in plan.chunks if not c.req.ended}
        live = list(reqs.values())
        ids = [req.submit.log_id or req.name for req in live]
        self._log(f"the {plans[0].entry} step failed", error, ids)
        self._num_failed_steps += 1
        if self._num_failed_steps >= MAX_FAILED_STEPS:
            raise EngineBroken(
                f"{MAX_FAILED_STEPS} steps failed one after another, at last with"
                f" {type(error).__name__}: {error}"
            ) from error
        failed: list[Output | Failed] = [
            Failed(req.name, "engine_error", "the engine failed on this request") for req in live
        ]
        failed += self._failed_with(failed)
        self._retire(failed)
        return failed

    def warm_up(self) -> None:
        """Run steps of every kind, and where streams are kept from waiting a prompt beside an
        answer, of which nothing stays but what steps took.

        An error here is the caller's.
        """
        self._is_warming_up = True
        run_every_kind(self)
        if self.scheduler.learns_times:
            with self.scheduler.exploring():
                names = run_prompt_beside_answer(self, self._clock)
            while self._in_flight:
                require_none_failed(self._commit_oldest())
            for req in filter(None, map(self.scheduler.find, names)):
                self.scheduler.remove(req, has_failed=True)
        self.scheduler.check_integrity()
        self._is_warming_up = False
        self.drafting = Drafting()

    def _failed_with(self, events: Sequence[Output | Failed]) -> list[Failed]:
        """The other choices of prompts that failed: who ran theirs next would fail as they did."""
        failed: list[Failed] = []
        for event in events:
            req = self.scheduler.find(event.request) if isinstance(event, Failed) else None
            if req is not None and isinstance(event, Failed):
                others = self.scheduler.held_behind(req)
                failed += [Failed(other.name, event.code, event.message) for other in others]
        return failed

    def _retire(self, events: Sequence[Output | Failed]) -> None:
        for event in events:
            if isinstance(event, Failed) or event.finish is not None:
                req = self.scheduler.find(event.request)
                assert req is not None, f"{event.request} ended twice"
                self.scheduler.remove(req, has_failed=isinstance(event, Failed))

    def _refusal(self, submit: Submit) -> Failed | None:
        # The gateway has checked all this for its clients; one bad request must not kill the rest.
        info = self.info
        if not 1 <= submit.num_choices <= MAX_CHOICES:
            message = f"{submit.num_choices} choices are not 1 to {MAX_CHOICES}"
            return Failed(submit.request, "invalid_value", message)
        if any(self._find(name) is not None for name in submit.names):
            return Failed(submit.request, "invalid_value", "a request of this name is running")
        if not submit.prompt or submit.max_tokens < 0:
            return Failed(submit.request, "invalid_value", "the prompt is empty")
        if submit.timeout_s is not None and not submit.timeout_s > 0:
            return Failed(submit.request, "invalid_value", "the time to end in is not above 0")
        if submit.num_tokens > info.max_context:
            message = f"{submit.num_tokens} tokens exceed the context of {info.max_context}"
            return Failed(submit.request, "context_length_exceeded", message)
        if not all(0 <= token < info.vocab_size for token in submit.prompt):
            message = f"a prompt id lies outside 0..{info.vocab_size - 1}"
            return Failed(submit.request, "invalid_value", message)
        if submit.top_logprobs > info.max_top_logprobs:
            message = f"at most {info.max_top_logprobs} logprobs are ranked"
            return Failed(submit.request, "invalid_value", message)
        return self._constrained.refusal(submit)
