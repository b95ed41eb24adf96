"""Writes a plan as the numbers that kernels read: `ir/contract/step_layout.py` has their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from lostwax.backends.runtime.step_rows import masks_of, rows_of
from lostwax.ir.contract.step_layout import BY_SEQ, HEADER, HEADER_SIZE, StepLayout
from lostwax.ir.contract.step_plan import StepPlan


class Misplanned(ValueError):
    """A plan that the contract allows and kernels do not take."""


def pack_plan(plan: StepPlan, layout: StepLayout, out: Any) -> list[int]:
    """Write the plan into its place, i32 `out`; return the sequences that pick, in order.

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
    mask_rows = masks_of(plan, len(logit_rows))
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
    header = {
        "num_seqs": count,
        "num_rows": plan.num_rows,
        "num_logits": len(logit_rows),
        "num_drafting": plan.num_picking,
        "drafts": plan.drafts,
        "is_decode": plan.entry == "decode",
        "num_tokens": len(plan.tokens),
    }
    out[: len(HEADER)] = [header.get(name, 0) for name in HEADER]
    by_seq = {
        "seqs": plan.seqs,
        "q_starts": q_starts,
        "logit_starts": logit_starts,
        "picks": picks,
        "behind": behind,
    }
    end = HEADER_SIZE
    for name in BY_SEQ:
        values = by_seq[name]
        out[end : end + len(values)] = values
        end += count + 1
    for values in (logit_rows, owners, targets, mask_rows, plan.tokens):  # in the order of BY_LOGIT
        out[end : end + len(values)] = values
        end += len(values)
    return [seq for seq, picked in zip(plan.seqs, picks, strict=True) if picked]
