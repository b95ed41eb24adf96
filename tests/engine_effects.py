"""What each option of an engine changes of what it does. Tests nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fake_runtime import FakeLimits, FakeRuntime

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.runtime import Ticket

CHANGED: dict[str, Any] = {
    "max_drafts": 2, "prefix_cache": False, "max_running": 3, "max_stall": 2.0, "max_context": 50,
    "max_extend_rows": 20, "adapt_drafts": True,
}  # fmt: skip
"""Another value of each option that the engine's core follows."""


class _Seeing(FakeRuntime):
    """Notes plans. A row takes a second, so that drafts never pay and prompts stall answers."""

    def __init__(self) -> None:
        super().__init__(
            FakeLimits(max_tokens=64, max_reqs=8, max_context=200, num_pages=400, max_drafts=3)
        )
        self.now, self.plans = 0.0, list[StepPlan]()

    def submit(self, plan: StepPlan) -> Ticket:
        """Note it, and let its time pass."""
        self.plans.append(plan)
        self.now += plan.num_rows
        return super().submit(plan)


def _core(options: EngineOptions) -> tuple[EngineCore, _Seeing]:
    runtime = _Seeing()
    return EngineCore(runtime, options, clock=lambda: runtime.now), runtime


def _add(core: EngineCore, name: str, num_prompt: int, max_tokens: int) -> None:
    prompt = [1 + i % 50 for i in range(num_prompt)]
    core.handle(Submit(request=name, prompt=prompt, max_tokens=max_tokens, ignore_eos=True))


def _finish(core: EngineCore) -> None:
    while core.has_work:
        core.step()


def _drafts(options: EngineOptions) -> set[int]:
    core, runtime = _core(options)
    _add(core, "a", 4, 150)
    _finish(core)
    return {plan.drafts for plan in runtime.plans[:30]}


def _rows_beside_an_answer(options: EngineOptions) -> int:
    core, runtime = _core(options)
    _add(core, "stream", 4, 40)
    for _ in range(4):
        core.step()
    _add(core, "prompt", 45, 1)
    del runtime.plans[:]
    _finish(core)
    return next(plan.num_rows for plan in runtime.plans if plan.entry == "extend")


def _rows_alone(options: EngineOptions) -> int:
    core, runtime = _core(options)
    _add(core, "prompt", 45, 1)
    _finish(core)
    return runtime.plans[0].num_rows


def _found(options: EngineOptions) -> int:
    core, _ = _core(options)
    for name in ("first", "again"):
        _add(core, name, 40, 1)
        _finish(core)
    return core.stats.prefix_tokens


def _running(options: EngineOptions) -> int:
    core, _ = _core(options)
    for name in "abcdefgh":
        _add(core, name, 2, 9)
    core.step()
    return core.stats.running


EFFECTS: dict[str, Callable[[EngineOptions], object]] = {
    "max_drafts": lambda options: max(_drafts(options)),
    "prefix_cache": _found,
    "max_running": _running,
    "max_stall": _rows_beside_an_answer,
    "max_context": lambda options: _core(options)[0].info.max_context,
    "max_extend_rows": _rows_alone,
    "adapt_drafts": lambda options: len(_drafts(options)),
}
"""What an engine of such options does, by the option that decides it."""
