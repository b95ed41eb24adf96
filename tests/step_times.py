"""What an engine takes its steps to have lasted, over a device that has a clock of its own.

Nobody waits for real. A check raises AssertionError where the engine measures something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fake_runtime import FakeLimits, FakeRuntime

from lostwax.backends.runtime.mask_gate import Masks
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.runtime import Ticket

HOST_S = 0.001
"""What the host does between two calls of `step`."""
DECODE_S = 0.010
EXTEND_S = 0.100
PAUSE_S = 1000.0

Make = type[EngineCore]
Check = Callable[[Make, int], None]


@dataclass
class _Timed:
    """A step that ends at a time of the device's clock."""

    device: TimedDevice
    ends_s: float
    ticket: Ticket

    @property
    def done(self) -> bool:
        """Whether that time has come."""
        return self.device.now >= self.ends_s

    def finish(self, masks: Masks) -> None:
        """The step's."""
        self.ticket.finish(masks)

    def result(self) -> StepResult:
        """The step's, once its time has come."""
        self.device.now = max(self.device.now, self.ends_s)
        return self.ticket.result()


class TimedDevice(FakeRuntime):
    """Runs a step behind the one before it, for a time that follows from its entry."""

    def __init__(self) -> None:
        super().__init__(FakeLimits(max_context=64))
        self.now, self._free_s = 100.0, 0.0

    def submit(self, plan: StepPlan) -> Ticket:
        """The step ends once those before it have ended and its own time has passed."""
        takes_s = DECODE_S if plan.entry == "decode" else EXTEND_S
        self._free_s = max(self.now, self._free_s) + takes_s
        return _Timed(self, self._free_s, super().submit(plan))


class _Engine:
    """An engine over such a device, whose host takes its time, too."""

    def __init__(self, make: Make, depth: int) -> None:
        self.device = TimedDevice()
        log = FailureLog(lambda _: None)
        self.core = make(self.device, log=log, depth=depth, clock=lambda: self.device.now)

    def add(self, name: str, max_tokens: int) -> None:
        asked = Submit(request=name, prompt=[5] * 3, max_tokens=max_tokens, ignore_eos=True)
        self.core.handle(asked)

    def step(self) -> None:
        self.core.step()
        self.device.now += HOST_S

    def run(self, name: str, max_tokens: int) -> None:
        self.add(name, max_tokens)
        while self.core.has_work:
            self.step()

    def expect(self, host_s: float) -> None:
        """A step lasts on average what the device runs it for, and the host's work `host_s` at
        most, by entry."""
        stats = self.core.stats
        means = {e: stats.seconds[e] / stats.segments[e] for e in stats.seconds}
        assert means["extend"] == pytest.approx(EXTEND_S, abs=host_s)
        assert means["decode"] == pytest.approx(DECODE_S, abs=host_s)


def a_step_lasts_as_long_as_the_device_runs_it(make: Make, depth: int) -> None:
    """The next step's time begins where that of the one before ends."""
    engine = _Engine(make, depth)
    engine.run("r", 30)
    engine.expect(2 * HOST_S)


def an_idle_pause_belongs_to_no_step(make: Make, depth: int) -> None:
    """Nor does what the host did meanwhile."""
    engine = _Engine(make, depth)
    for name in "abc":
        engine.run(name, 3)
        engine.device.now += PAUSE_S
    engine.expect(2 * HOST_S)


def the_time_is_that_of_the_step_that_ended(make: Make, depth: int) -> None:
    """Steps of both entries are in flight together; each has its own time."""
    engine = _Engine(make, depth)
    for name in "abc":
        engine.add(name, 6)
        engine.step()
    while engine.core.has_work:
        engine.step()
    engine.expect(2 * HOST_S)


def a_failed_step_lends_its_time_to_no_other(make: Make, depth: int) -> None:
    """The next one begins when it is submitted."""
    engine = _Engine(make, depth)
    engine.device.fail = True
    engine.run("failed", 3)
    engine.device.fail = False
    engine.device.now += PAUSE_S
    engine.run("right", 3)
    assert engine.core.stats.segments["extend"] == 1
    engine.expect(2 * HOST_S)


def the_warm_up_is_not_counted(make: Make, depth: int) -> None:
    """First steps take longer than those that follow."""
    core = _Engine(make, depth).core
    core.warm_up()
    assert set(core.stats.segments.values()) == {0}
    assert set(core.stats.seconds.values()) == {0.0}


CHECKS: tuple[Check, ...] = (
    a_step_lasts_as_long_as_the_device_runs_it,
    an_idle_pause_belongs_to_no_step,
    the_time_is_that_of_the_step_that_ended,
    a_failed_step_lends_its_time_to_no_other,
    the_warm_up_is_not_counted,
)
