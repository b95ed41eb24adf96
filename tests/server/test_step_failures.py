"""A failed step ends the requests of its plan, and failures in a row alone end the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_runtime import FakeLimits, FakeRuntime, generate
from step_oracle import StepBatch

from lostwax.ir.contract.step import StepResult
from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.loop import MAX_FAILED_STEPS, EngineBroken, EngineCore
from lostwax.server.engine.messages import Failed, Output, Submit

BAD = 7
"""A token that no step survives."""


class _Failing(FakeRuntime):
    def run(self, batch: StepBatch) -> StepResult:
        if BAD in batch.tokens and batch.entry == "extend":
            raise ZeroDivisionError("a bad token")
        return super().run(batch)


def _submit(name: str, prompt: list[int], max_tokens: int = 5) -> Submit:
    return Submit(request=name, prompt=prompt, max_tokens=max_tokens, ignore_eos=True)


def _ends(events: list[Output | Failed]) -> dict[str, str]:
    """How each request that ended did."""
    ended = [e for e in events if isinstance(e, Failed) or e.finish is not None]
    return {e.request: e.code if isinstance(e, Failed) else str(e.finish) for e in ended}


def _ids(events: list[Output | Failed], name: str) -> list[int]:
    mine = [e for e in events if isinstance(e, Output) and e.request == name]
    return [score.token for e in mine for score in e.tokens]


def _finish(core: EngineCore) -> list[Output | Failed]:
    events: list[Output | Failed] = []
    for _ in range(100):
        events += core.step()
        core.scheduler.check_integrity()
    assert not core.has_work
    return events


def test_a_bad_prompt_fails_no_neighbour_that_runs_but_is_not_in_its_step() -> None:
    said: list[str] = []
    core = EngineCore(_Failing(), log=FailureLog(said.append))
    core.handle(_submit("good", [3, 1]))
    events = core.step()
    core.handle(_submit("bad", [1, BAD]))
    events += _finish(core)
    assert _ends(events) == {"bad": "engine_error", "good": "length"}
    assert _ids(events, "good") == generate([3, 1], 5)
    assert len(said) == 1
    assert said[0].startswith("the extend step failed (request bad): ")


def test_a_failed_draft_fails_its_step() -> None:
    said: list[str] = []
    runtime = FakeRuntime(replace(FakeLimits(), max_drafts=2))
    runtime.fail_drafts = True
    core = EngineCore(runtime, log=FailureLog(said.append))
    core.handle(_submit("first", [3, 1], 1))
    core.handle(_submit("second", [4, 1], 9))
    events = _finish(core)
    assert _ends(events) == {"first": "engine_error", "second": "engine_error"}
    assert len(said) == 1
    assert "the extend step failed (request first, second)" in said[0]


def test_failures_with_good_steps_between_never_end_the_engine() -> None:
    core = EngineCore(_Failing(), log=FailureLog(lambda _: None))
    for _ in range(MAX_FAILED_STEPS + 1):
        core.handle(_submit("bad", [BAD]))
        assert _ends(_finish(core)) == {"bad": "engine_error"}
        core.handle(_submit("ok", [1], 2))
        assert _ends(_finish(core)) == {"ok": "length"}


def test_failures_in_a_row_end_the_engine_at_the_last_one_allowed() -> None:
    core = EngineCore(_Failing(), log=FailureLog(lambda _: None))
    for number in range(MAX_FAILED_STEPS):
        core.handle(_submit(f"bad {number}", [BAD]))
        if number < MAX_FAILED_STEPS - 1:
            assert _ends(core.step()) == {f"bad {number}": "engine_error"}
    with pytest.raises(EngineBroken, match="3 steps failed one after another"):
        core.step()
