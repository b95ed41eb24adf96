"""What every runtime, real or fake, must refuse and keep where rows wait for masks."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from lostwax.backends.runtime.mask_gate import MaskError
from lostwax.backends.runtime.step_programs import StepError
from lostwax.ir.contract.masks import mask_words
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import Enter
from lostwax.server.engine.runtime import Runtime

PROMPT = (5, 3, 8, 1)


class _LooksLikeMasks:
    """The right dtype and shape, and no numbers."""

    dtype = np.dtype(np.int32)

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


def prompt(**changes: Any) -> StepPlan:
    """A prompt that picks its first token under the head `sample`."""
    enter = Enter(seq=1, pages=(1, 2), length=0, limit=8, num_prompt=len(PROMPT))
    count = len(PROMPT)
    plan = StepPlan(
        entry="extend", head="sample", seqs=(1,), counts=(count,), ends=(count,), tokens=PROMPT,
        entering=(enter,), logits=((count - 1, 1),),
    )  # fmt: skip
    return msgspec.structs.replace(plan, **changes)


def _three_prompts() -> StepPlan:
    """Three prompts of a token, each of which picks its first with a mask."""
    enter = [Enter(seq=r, pages=(r,), length=0, limit=2, num_prompt=1) for r in (1, 2, 3)]
    return StepPlan(
        entry="extend", head="sample", seqs=(1, 2, 3), counts=(1, 1, 1), ends=(1, 1, 1),
        tokens=PROMPT[:3], entering=tuple(enter), logits=((0, 3),), masked=((0, 3),),
    )  # fmt: skip


def _refuses(submit: Any, plan: StepPlan, why: str) -> None:
    with pytest.raises(StepError, match=why):
        submit(plan)


def check_contract(runtime: Runtime) -> None:
    """Every misuse is a clear error that changes nothing, and the masked step then runs."""
    vocab = runtime.limits.vocab_size
    words = mask_words(vocab)
    every = np.full((1, words), -1, np.int32)
    plain = runtime.submit(prompt())
    with pytest.raises(MaskError, match="no row of this step waits for a mask"):
        plain.finish(every)
    want = plain.result().ids
    masked = prompt(masked=((0, 1),))
    _refuses(runtime.submit, msgspec.structs.replace(masked, head="pick"), "looks at none")
    _refuses(runtime.submit, prompt(masked=((0, 2),)), "logit row 1 waits for a mask; the step has")
    _refuses(runtime.submit, prompt(masked=((0, 1), (0, 1))), "not in order, or one waits twice")
    scored = prompt(head="score", scored=((0, 1),), targets=(0,), masked=((0, 1),))
    _refuses(runtime.submit, scored, "such a row picks nothing")

    ticket = runtime.submit(masked)
    assert not ticket.done
    _refuses(runtime.submit, prompt(), "waits for masks")
    with pytest.raises(MaskError, match=r"call its ticket's finish\(masks\) before"):
        ticket.result()
    wrong: tuple[tuple[Any, str], ...] = (
        (every.astype(np.int64), "masks are int64; give a numpy array of int32"),
        (every.tolist(), "masks are list; give a numpy array of int32"),
        (np.ma.masked_equal(every, 5), "masks are MaskedArray; give a numpy array of int32"),
        (every.view(np.recarray), "masks are recarray; give a numpy array of int32"),
        (_LooksLikeMasks(every.shape), "masks are _LooksLikeMasks; give a numpy array of int32"),
        (every[0], rf"the shape \[{words}\]; give \[1, {words}\]"),
        (every[:, 1:], "the shape"),
        (np.repeat(every, 2, axis=0), "the shape"),
        (np.zeros_like(every), "mask 0 allows no id"),
    )
    masks: Any
    for masks, why in wrong:
        with pytest.raises(MaskError, match=why):
            ticket.finish(masks)
        assert not ticket.done
    if vocab % 32:
        behind = np.zeros_like(every)
        behind[0, -1] = -1 << vocab % 32
        with pytest.raises(MaskError, match="mask 0 allows no id"):
            ticket.finish(behind)
    ticket.finish(every)
    with pytest.raises(MaskError, match="finished before"):
        ticket.finish(every)
    assert ticket.result().ids == want, "a mask that allows all ids changes nothing"
    assert runtime.submit(prompt()).result().ids == want
    _check_each_row(runtime)


def _check_each_row(runtime: Runtime) -> None:
    """A mask that allows no id is refused in any row, whatever the others allow."""
    vocab = runtime.limits.vocab_size
    ticket = runtime.submit(_three_prompts())
    good = np.full((3, mask_words(vocab)), -1, np.int32)
    for row in (2, 1):
        bad = good.copy()
        bad[row] = 0
        with pytest.raises(MaskError, match=f"mask {row} allows no id"):
            ticket.finish(bad)
        assert not ticket.done
    ticket.finish(good)
    assert len(ticket.result().ids) == 3
