"""Masks on a real artifact that drafts: who may pick what, and who is not concerned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_state import NotingRuntime
from mask_bits import is_allowed, mask_of
from mask_contract import check_contract, prompt
from masked_case import COUNTS, FIRST, check_masked_step, verify
from reference_model import ReferenceModel, f32_module

from lostwax.backends.runtime import pack_plan
from lostwax.backends.runtime.load import Runtime
from lostwax.backends.runtime.mask_gate import Masks
from lostwax.backends.runtime.mask_state import MaskState
from lostwax.backends.runtime.step_programs import StepError
from lostwax.backends.runtime.ticket import Held
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.ir.contract.program import Head
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import Enter

NewReference = Callable[[], ReferenceModel]


@pytest.fixture(scope="module")
def reference(good_drafts: Runtime, good_folder: Path) -> NewReference:
    checkpoint = open_checkpoint(good_folder / "checkpoint")
    module = f32_module(checkpoint)
    return lambda: ReferenceModel(checkpoint, module, 48)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("head", ["sample", "score"])
def test_masked_rows_pick_what_is_allowed_and_neighbours_keep_every_bit(
    good_drafts: Runtime, reference: NewReference, head: Head, seed: int
) -> None:
    check_masked_step(good_drafts, reference(), head, seed)


def test_masks_of_what_is_picked_anyway_change_no_token_and_no_draft(good_drafts: Runtime) -> None:
    for heat in (0.0, 1.0):
        plain = verify(good_drafts, None, heat=heat)
        own = plain.result.ids[FIRST : FIRST + COUNTS[1]]
        vocab = good_drafts.limits.vocab_size
        found = verify(good_drafts, np.stack([mask_of([i], vocab) for i in own]), heat=heat)
        assert found == plain
    assert verify(good_drafts, np.full((3, 2), -1, np.int32)) == verify(good_drafts, None)


def test_warm_rows_sample_among_the_allowed(good_drafts: Runtime) -> None:
    vocab = good_drafts.limits.vocab_size
    masks = np.stack([mask_of(range(r, vocab, 4), vocab) for r in range(COUNTS[1])])
    found = verify(good_drafts, masks, heat=1.0)
    picks = found.result.ids[FIRST : FIRST + COUNTS[1]]
    assert all(is_allowed(mask, pick) for mask, pick in zip(masks, picks, strict=True))


def test_the_mask_of_a_row_in_the_last_slice_of_a_head_is_its_own(good_drafts: Runtime) -> None:
    """Twenty scored rows before it are more than the head takes at once."""
    tokens, last = tuple(range(21)), 20
    assert max(
        ref.bucket.rows for ref in good_drafts.manifest.programs if ref.segment == "score"
    ) < len(tokens)
    wide: dict[str, Any] = {
        "head": "score", "tokens": tokens, "counts": (21,), "ends": (21,), "logits": ((0, 21),),
        "scored": ((0, last),), "targets": tokens[1:],
        "entering": (Enter(seq=1, pages=(1, 2), length=0, limit=30, num_prompt=21),),
    }  # fmt: skip
    plain = good_drafts.submit(prompt(**wide)).result()
    ticket = good_drafts.submit(prompt(**wide, masked=((last, 1),)))
    ticket.finish(mask_of([9, 50], 64)[None])
    found = ticket.result()
    assert found.ids[last] in (9, 50)
    assert found.ids[last] != plain.ids[last]
    assert found.target_logprobs == plain.target_logprobs
    assert found.top_logprobs == plain.top_logprobs


def test_a_plan_or_a_ticket_is_refused_where_masks_do_not_suit(good_drafts: Runtime) -> None:
    check_contract(good_drafts)
    check_contract(NotingRuntime(good_drafts))
    with pytest.raises(StepError, match="submit it, and finish its ticket"):
        good_drafts.run(prompt(masked=((0, 1),)))


def test_a_body_that_fails_is_heard_of_though_masks_come(
    good_drafts: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = prompt(masked=((0, 1),))
    every = np.full((1, 2), -1, np.int32)

    def fail() -> None:
        raise ZeroDivisionError("bad")

    body, head = map(good_drafts.bound, good_drafts.programs.pick(masked)[0])
    with monkeypatch.context() as patched:
        patched.setattr(body, "replay", fail)
        ticket = good_drafts.submit(masked)
    assert ticket.done
    ticket.finish(every)
    with pytest.raises(ZeroDivisionError):
        ticket.result()
    with monkeypatch.context() as patched:
        patched.setattr(head, "replay", fail)
        ticket = good_drafts.submit(masked)
        ticket.finish(every)
    with pytest.raises(ZeroDivisionError):
        ticket.result()
    ticket = good_drafts.submit(masked)
    ticket.finish(every)
    assert ticket.result().ids == good_drafts.run(prompt()).ids


def _shifted(patch: pytest.MonkeyPatch) -> None:
    write = MaskState.write

    def shifted(own: MaskState, masks: Masks) -> None:
        write(own, np.roll(masks, 1, axis=0))

    patch.setattr(MaskState, "write", shifted)


def _on_the_neighbour(patch: pytest.MonkeyPatch) -> None:
    masks_of = pack_plan.masks_of

    def next_row(plan: StepPlan, count: int) -> Any:
        return np.roll(masks_of(plan, count), 1)

    patch.setattr(pack_plan, "masks_of", next_row)


def _on_first_rows_alone(patch: pytest.MonkeyPatch) -> None:
    masks_of = pack_plan.masks_of

    def first(plan: StepPlan, count: int) -> Any:
        found = masks_of(plan, count)
        return np.where(found > 0, -1, found)

    patch.setattr(pack_plan, "masks_of", first)


FAULTS = {
    "masks are shifted by a row": _shifted,
    "masks lie on the neighbour's row": _on_the_neighbour,
    "rows of drafts have none": _on_first_rows_alone,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(
    good_drafts: Runtime, reference: NewReference, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    with pytest.raises(AssertionError):
        check_masked_step(good_drafts, reference())


def test_a_head_that_does_not_wait_for_masks_is_noticed(
    good_drafts: Runtime, reference: NewReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs behind the body, over what the step before had for masks."""
    replay = Runtime._replay  # pyright: ignore[reportPrivateUsage]

    def early(own: Runtime, stages: Any, plan: StepPlan) -> Any:
        begun = replay(own, stages, plan)
        if not isinstance(begun, Held):
            return begun
        started = begun.finish(np.full((plan.num_masked, 2), -1, np.int32))
        return Held(lambda _: started)

    monkeypatch.setattr(Runtime, "_replay", early)
    with pytest.raises(AssertionError):
        check_masked_step(good_drafts, reference())
