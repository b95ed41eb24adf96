"""Fakes are as strict as the real runtime where rows wait for masks, and pick what masks allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from fake_runtime import VOCAB, FakeLimits, FakeRuntime, logprobs_after
from late_runtime import DeviceFault, LateRuntime, Owner
from mask_bits import mask_of
from mask_contract import PROMPT, check_contract, prompt
from rows_runtime import OracleRuntime
from scripted_runtime import ScriptedRuntime

from lostwax.ir.contract.program import Entry
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.server.engine.runtime import Runtime

LIMITS = FakeLimits(max_drafts=2)
DECODE = StepPlan(
    entry="decode", head="sample", seqs=(1,), counts=(3,), ends=(7,), logits=((0, 3),),
    masked=((0, 3),), drafts=2,
)  # fmt: skip


def _last_token(entry: Entry, values: dict[str, Any]) -> Any:
    return values["tokens"][values["logit_rows"]]


def late() -> LateRuntime:
    return LateRuntime(LIMITS, lambda seq: Owner(("one", "two", "three")[seq - 1], 0))


RUNTIMES: dict[str, Callable[[], Runtime]] = {
    "fake": lambda: FakeRuntime(LIMITS),
    "late": late,
    "rows": lambda: OracleRuntime(LIMITS, _last_token),
    "scripted": lambda: ScriptedRuntime(script=[65]),
}


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_fake_refuses_what_the_real_runtime_refuses(name: str) -> None:
    check_contract(RUNTIMES[name]())


@pytest.mark.parametrize("runtime", [FakeRuntime(LIMITS), late()], ids=["fake", "late"])
def test_a_fake_picks_the_likeliest_allowed_id_in_every_verified_row(runtime: Any) -> None:
    begun = runtime.submit(prompt(drafts=2)).result()
    tokens = [*PROMPT, *begun.ids, *begun.drafts[0]]
    few = [(3, 40), (60, 0), (31, 32)]
    ticket = runtime.submit(DECODE)
    assert not ticket.done
    ticket.finish(np.stack([mask_of(each, VOCAB) for each in few]))
    result = ticket.result()
    for row, each in enumerate(few):
        scores = logprobs_after(tokens[: len(PROMPT) + 1 + row])
        assert result.ids[row] == max(each, key=lambda i: scores[i])
        assert result.logprobs[row] == scores[result.ids[row]]


def test_a_late_step_waits_for_its_masks_whatever_runs() -> None:
    runtime = late()
    before = runtime.submit(prompt())
    ticket = runtime.submit(DECODE)
    for _ in range(3):
        runtime.run_next()
    assert before.done
    assert not ticket.done
    ticket.finish(np.full((3, 2), -1, np.int32))
    runtime.run_next()
    assert ticket.done


def test_a_late_step_that_waited_behind_a_failure_is_worth_nothing() -> None:
    runtime = late()
    runtime.fail_in = 0
    failed = runtime.submit(prompt())
    ticket = runtime.submit(DECODE)
    with pytest.raises(DeviceFault):
        failed.result()
    ticket.finish(np.full((3, 2), -1, np.int32))
    garbage = [0, 7, 14]
    assert ticket.result().ids == garbage
    assert runtime.struck == {Owner("one", 0)}


def test_a_script_that_its_mask_forbids_is_the_tests_mistake() -> None:
    runtime = ScriptedRuntime(script=[65])
    ticket = runtime.submit(prompt(masked=((0, 1),)))
    ticket.finish(mask_of([64], runtime.limits.vocab_size)[None])
    with pytest.raises(AssertionError, match="its mask forbids it"):
        ticket.result()


def test_rows_of_a_fake_are_told_their_masks() -> None:
    seen: list[Any] = []

    def model(entry: Entry, values: dict[str, Any]) -> Any:
        seen.append((entry, values["mask_rows"].tolist()))
        return values["tokens"][values["logit_rows"]]

    runtime = OracleRuntime(LIMITS, model)
    runtime.submit(prompt(drafts=2)).result()
    ticket = runtime.submit(msgspec.structs.replace(DECODE, masked=((1, 2),)))
    ticket.finish(np.full((2, 2), -1, np.int32))
    ticket.result()
    assert ("decode", [-1, 0, 1]) in seen
    assert {tuple(rows) for entry, rows in seen if entry == "draft"} == {(-1,)}
