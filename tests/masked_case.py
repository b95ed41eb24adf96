"""Three requests of which one has masks in every row that a step verifies, on a model that drafts.

`check_masked_step` holds such a step against the same one without masks, and against the fp64
reference. Knows no fault and no test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from known_state import fields_of
from mask_bits import is_allowed, mask_of
from reference_model import ReferenceModel

from lostwax.backends.runtime.load import Runtime
from lostwax.backends.runtime.mask_gate import Masks
from lostwax.ir.contract.program import Head
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import Enter

COUNTS = (1, 3, 3)
"""Rows that each request has verified: no draft, and twice two."""
FIRST = 1
"""The first of the masked request's logit rows, all of which are masked."""
DRAFTS = 2
LENGTHS = (9, 33, 6)


@dataclass(frozen=True)
class Step:
    """A verified step: what was verified, what came, and what it left of each request."""

    drafted: list[list[int]]
    """The tokens of each request's rows."""
    result: StepResult
    lengths: list[int]
    following: list[list[int]]


def prompts(vocab_size: int, temperature: float) -> StepPlan:
    """Three prompts enter in one step, which drafts."""
    tokens = [[(7 * i + 13 * r) % vocab_size for i in range(n)] for r, n in enumerate(LENGTHS)]
    ends = np.cumsum(LENGTHS).tolist()
    return StepPlan(
        entry="extend",
        head="sample",
        seqs=(1, 2, 3),
        counts=LENGTHS,
        ends=LENGTHS,
        tokens=tuple(token for each in tokens for token in each),
        entering=tuple(
            Enter(
                seq=1 + r, pages=tuple(range(1 + 8 * r, 9 + 8 * r)), length=0, limit=100,
                num_prompt=n, temperature=temperature, seed=r,
            )
            for r, n in enumerate(LENGTHS)
        ),
        logits=tuple((end - 1, 1) for end in ends),
        drafts=DRAFTS,
    )  # fmt: skip


def verify(runtime: Runtime, masks: Masks | None, head: Head = "sample", heat: float = 0) -> Step:
    """Prefill and verify, with masks for the second request's rows or without any."""
    begun = runtime.run(prompts(runtime.limits.vocab_size, heat))
    pairs = zip(begun.ids, begun.drafts, COUNTS, strict=True)
    drafted = [[token, *drafts][:count] for token, drafts, count in pairs]
    plan = StepPlan(
        entry="decode",
        head=head,
        seqs=(1, 2, 3),
        counts=COUNTS,
        ends=tuple(n + count for n, count in zip(LENGTHS, COUNTS, strict=True)),
        logits=((0, sum(COUNTS)),),
        masked=() if masks is None else ((FIRST, COUNTS[1]),),
        drafts=DRAFTS,
    )
    ticket = runtime.submit(plan)
    if masks is not None:
        assert not ticket.done, "the head did not wait"
        ticket.finish(masks)
    result = ticket.result()
    fields = fields_of(runtime)
    following = fields["tokens"][1:4, : 1 + DRAFTS].tolist()
    return Step(drafted, result, fields["length"][1:4].tolist(), following)


def reference(model: ReferenceModel, drafted: list[int], masks: Masks, picked: list[int]) -> Any:
    """What the fp64 model picks of masked ids, greedily, in the second request's rows, and the
    whole log-probabilities of `picked`."""
    prompt = np.array([(7 * i + 13) % model.vocab_size for i in range(LENGTHS[1])], np.int32)
    model.step(prompt, np.full(len(prompt), -1, np.int32))
    return model.step(np.array(drafted, np.int32), np.array(picked, np.int32), masks)


def check_masked_step(
    runtime: Runtime, model: ReferenceModel, head: Head = "sample", seed: int = 0
) -> None:
    """A few ids in each row's mask, without the one that is picked of all."""
    vocab, rng = runtime.limits.vocab_size, np.random.default_rng(seed)
    plain = verify(runtime, None, head)
    own = slice(FIRST, FIRST + COUNTS[1])
    few = [rng.choice(vocab, 5, replace=False).tolist() for _ in range(COUNTS[1])]
    ids = [[i for i in some if i not in plain.result.ids[own]] for some in few]
    masks = np.stack([mask_of(some, vocab) for some in ids])
    found = verify(runtime, masks, head)
    assert found.drafted == plain.drafted, "the prefill is another"
    picks = found.result.ids[own]
    for pick, mask in zip(picks, masks, strict=True):
        assert is_allowed(mask, pick), f"{pick} is forbidden"
    scores, want = reference(model, found.drafted[1], masks, picks)
    assert picks == want.tolist(), "a greedy pick is the likeliest of the allowed ids"
    assert np.allclose(found.result.logprobs[own], scores, atol=1e-3), "of all ids, not of these"
    accepted = 0
    while accepted < DRAFTS and found.drafted[1][accepted + 1] == picks[accepted]:
        accepted += 1
    assert found.lengths[1] == LENGTHS[1] + accepted + 1
    assert found.following[1][0] == picks[accepted]
    _check_neighbours(plain, found, own)


def _check_neighbours(plain: Step, found: Step, own: slice) -> None:
    """Nothing of them changes: the artifact is `--batch-invariant`."""
    others = [i for i in range(sum(COUNTS)) if not own.start <= i < own.stop]
    for name in ("ids", "logprobs", "top_ids", "top_logprobs"):
        had, has = getattr(plain.result, name), getattr(found.result, name)
        assert [had[i] for i in others if had] == [has[i] for i in others if has], name
    for r in (0, 2):
        assert found.lengths[r] == plain.lengths[r]
        assert found.following[r] == plain.following[r]
        assert found.result.drafts[r] == plain.result.drafts[r]
