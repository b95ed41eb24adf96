"""Writes a plan as the numbers that kernels read: `ir/contract/step_layout.py` has their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lostwax.backends.runtime.step_rows import rows_of
from lostwax.ir.contract.step_layout import HEADER, SENT, StepLayout
from lostwax.ir.contract.step_plan import StepPlan


@dataclass(frozen=True, slots=True)
class Packed:
    """How many numbers are to be sent, and the sequences that pick, in order."""

    size: int
    picking: list[int]


class Misplanned(ValueError):
    """A plan that the contract allows and kernels do not take."""


def pack_plan(plan: StepPlan, layout: StepLayout, out: Any) -> Packed:
    """Write the plan into i32 `out`.

    A step without logit rows gets one that picks nothing: what accepts rows stands behind a head.
    Raises Misplanned where more rows of a sequence pick than tokens can follow.
    """
    count = len(plan.seqs)
    q_starts = np.zeros(count + 1, np.int32)
    np.cumsum(plan.counts, out=q_starts[1:])
    logit_rows = rows_of(plan.logits) if plan.logits else np.zeros(1, np.int32)
    scored = rows_of(plan.scored) if plan.logits else np.zeros(1, np.int32)
    targets = np.full(len(logit_rows), -1, np.int32)
    targets[scored] = plan.targets or 0
    owners = np.searchsorted(q_starts, logit_rows, side="right") - 1
    logit_starts = np.searchsorted(logit_rows, q_starts)
    picks = np.bincount(owners[targets < 0], minlength=count)
    if picks.max() > layout.max_drafts + 1:
        raise Misplanned(
            f"{picks.max()} rows of a sequence pick; {layout.max_drafts + 1} tokens follow at most"
        )
    behind = np.full(count, -1, np.int32)
    if plan.drafts:
        behind[picks == 0] = plan.behind
    arrays: dict[str, Any] = {
        "seqs": plan.seqs,
        "q_starts": q_starts,
        "logit_starts": logit_starts,
        "picks": picks,
        "behind": behind,
        "logit_rows": logit_rows,
        "logit_owners": owners,
        "targets": targets,
        "tokens": plan.tokens,
    }
    header = {
        "num_seqs": count,
        "num_rows": plan.num_rows,
        "num_logits": len(logit_rows),
        "num_drafting": plan.num_picking,
        "drafts": plan.drafts,
        "is_decode": plan.entry == "decode",
    }
    out[: len(HEADER)] = [header.get(name, 0) for name in HEADER]
    end = len(HEADER)
    for name in SENT:
        values = arrays[name]
        if len(values):
            start = layout.offsets[name]
            end = start + len(values)
            out[start:end] = values
    return Packed(end, [seq for seq, picked in zip(plan.seqs, picks, strict=True) if picked])
