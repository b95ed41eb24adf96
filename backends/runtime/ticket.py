"""Tickets of steps that were started: when their results may be read, and who fails with whom.

Satisfies `lostwax.server.engine.runtime.Ticket`. Knows no program, no batch and no device.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lostwax.backends.runtime.driver import Mark
from lostwax.backends.runtime.mask_gate import NO_GATE, MaskGate, Masks
from lostwax.ir.contract.step import StepResult


class StepBefore(RuntimeError):
    """A step that was submitted before this one failed, so that this one saw what it left."""


class Started(msgspec.Struct, frozen=True):
    """A step that is enqueued: `read` gives its result once `mark` has passed."""

    mark: Mark
    read: Callable[[], StepResult]


class Held(msgspec.Struct, frozen=True):
    """A step whose body is enqueued; `finish` enqueues the rest, over the masks of its rows."""

    finish: Callable[[Masks], Started]


class StepTicket:
    """One step in the order in which steps are submitted.

    `start` enqueues it, or only its body, where the `gate` waits for masks; what it raises is kept
    for `result`. Where the step `before` has failed and nobody has heard of it by its `result` yet,
    this one fails with it. `fail` is told of a step that failed by itself.
    """

    def __init__(
        self,
        before: StepTicket | None,
        start: Callable[[], Started | Held],
        fail: Callable[[], None] = lambda: None,
        gate: MaskGate = NO_GATE,
    ) -> None:
        assert before is None or not before.waits, "the step before waits for masks"
        # A ticket that can fail no follower is let go of, or all there ever were would be kept.
        self._before = before if before is not None and before._can_fail_followers else None
        self._fail = fail
        self._gate = gate
        self._held: Held | None = None
        self._started: Started | None = None
        self._outcome: StepResult | Exception | None = None
        self._was_heard = False
        if self._before is not None and self._before.done and self._before._failure is not None:
            self._settle()  # not even started
            return
        self._enqueue(start)

    def _enqueue(self, start: Callable[[], Started | Held]) -> None:
        try:
            begun = start()
        except Exception as error:
            self._fail_with(error)
            return
        if isinstance(begun, Held):
            self._held = begun
            return
        self._started = begun
        if self.done:  # on the host, where the next step writes over this one's outputs
            self._settle()

    @property
    def waits(self) -> bool:
        """Whether head and drafts are held back until `finish` brings masks."""
        return self._held is not None

    def finish(self, masks: Masks) -> None:
        """Enqueue head and drafts over the masks of the rows that wait, in their order.

        Raises MaskError, and changes nothing, where none wait, where they have come, and where
        these have another form. Of a step that has failed they are dropped: `result` tells.
        """
        self._gate.take(masks)
        held, self._held = self._held, None
        if held is not None:
            self._enqueue(lambda: held.finish(masks))

    @property
    def done(self) -> bool:
        """Whether `result` would return or raise without waiting; no while it waits for masks."""
        if self.waits:
            return False
        if self._outcome is not None or self._started is None:
            return True
        try:
            return self._started.mark.passed
        except RuntimeError:  # the device's failure, which `result` raises
            return True

    def result(self) -> StepResult:
        """Wait for the step; raises what it raised, or StepBefore, or MaskError while it waits."""
        if self.waits:
            self._gate.require_open()
        outcome = self._settle()
        self._was_heard = True
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @property
    def _can_fail_followers(self) -> bool:
        return not self._was_heard and not isinstance(self._outcome, StepResult)

    @property
    def _failure(self) -> Exception | None:
        """Wait for the step, and say what it raised."""
        outcome = self._settle()
        return outcome if isinstance(outcome, Exception) else None

    def _settle(self) -> StepResult | Exception:
        """Wait for those before and for the step; from then on the outcome is known."""
        if self._outcome is not None:
            return self._outcome
        cause = self._before._failure if self._before is not None else None
        self._before = None
        if cause is not None:
            self._outcome = StepBefore("a step that was submitted before this one failed")
            self._outcome.__cause__ = cause
            return self._outcome
        assert self._started is not None
        try:
            self._started.mark.wait()
            self._outcome = self._started.read()
        except Exception as error:
            return self._fail_with(error)
        return self._outcome

    def _fail_with(self, error: Exception) -> Exception:
        self._before = None
        self._outcome = error
        self._fail()
        return error
