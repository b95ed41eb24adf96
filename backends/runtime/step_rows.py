"""A step from its plan to its drafts: the inputs of each body in turn, and what its picks change.

Between two bodies stands what a head picked: the state takes over the tokens that hold, and the
next body's rows follow from it. Knows no program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from lostwax.backends.runtime.derive import NARROWED, Rows, StepInputs, derive, derive_logits
from lostwax.backends.runtime.state_table import StateTable
from lostwax.ir.contract.step import STEP_INPUTS
from lostwax.ir.contract.step_plan import Span, StepPlan
from lostwax.ir.contract.step_state import NO_TOKEN

SAMPLED = ("temperature", *NARROWED)
"""Inputs that say how a row picks."""
_ALL = slice(None)
_NONE = np.empty(0, np.int32)


class StepRows:
    """The rows of one step over the state, which it changes. `inputs` are the next body's, and its
    head's."""

    def __init__(self, plan: StepPlan, state: StateTable, page_tokens: int) -> None:
        state.change(plan)
        self._plan = plan
        self._state = state
        self._page_tokens = page_tokens
        self._rows = rows = _planned(plan, state)
        values = derive(rows, state, page_tokens)
        self._picked = logit_rows = rows_of(plan.logits)
        """Rows that pick, in order."""
        self._scored = rows_of(plan.scored)
        """Numbers of logit rows that do not."""
        self._is_plain = len(logit_rows) == len(rows.tokens) == len(rows.seqs) and not plan.scored
        """Whether every sequence has one row, which picks: no owner is to be looked for."""
        if plan.logits:
            seqs, at = rows.seqs, rows.starts
            if not self._is_plain:
                owners = rows.owners[logit_rows]
                # not the derived position: that of a row behind the limit is -1
                seqs, at = seqs[owners], logit_rows - rows.q_starts[owners] + at[owners]
            follows = plan.entry == "decode"
            logits = derive_logits(logit_rows, seqs, at + 1, state, follows=follows)
            if plan.masked:
                logits["mask_rows"] = masks_of(plan, len(logit_rows))
            if plan.scored:
                logits["targets"][self._scored] = plan.targets
                for name in SAMPLED:  # nobody asks what they pick
                    if logits[name].flags.writeable:  # else it is padding
                        logits[name][self._scored] = STEP_INPUTS[name].padding
                self._picked = np.delete(logit_rows, self._scored)
            values |= logits
        self._num_drafted = 0
        self.counted: tuple[Any, Any] | None = None
        """Sequences whose tokens are counted, and what the step has picked for them: i32 each."""
        self.inputs = StepInputs(values, rows.seqs, state)

    def advance(self, ids: Any) -> None:
        """Accept the drafts that are what was picked, and let the last pick follow.

        ids: i32, one a row whose logits were wanted. Then `inputs` are those of the first draft.
        """
        rows, fields = self._rows, self._state.fields
        token_of, last, picks, ends = ids, self._picked, _ALL, rows.starts + 1
        if not self._is_plain:
            token_of = np.full(len(rows.tokens), NO_TOKEN, np.int32)
            token_of[self._picked] = np.delete(ids, self._scored) if len(self._scored) else ids
            count = np.bincount(rows.owners[self._picked], minlength=len(rows.seqs))
            picks = count > 0
            last = _last(rows, token_of, count)
            ends = rows.starts + last + 1 - rows.q_starts[:-1]
        if self._plan.head != "pick":
            self._count(ids, last)
        fields["length"][rows.seqs] = np.minimum(ends, fields["limit"][rows.seqs])
        if fields["tokens"].shape[1] > 1:
            fields["tokens"][rows.seqs] = NO_TOKEN
        fields["tokens"][rows.seqs, 0] = token_of[last]
        if self._plan.drafts:
            self._open_first_draft(token_of, last, picks)

    def _count(self, ids: Any, last: Any) -> None:
        """Note the outputs among the picks: those of each sequence's rows that hold, `last` and
        before it."""
        picked, seqs = self._picked, self._rows.seqs
        tokens = np.delete(ids, self._scored) if len(self._scored) else ids
        holds: Any = True
        if not self._is_plain:
            owners = self._rows.owners[picked]
            holds, seqs = picked <= last[owners], seqs[owners]
        is_counted = (self._state.fields["counted"][seqs] > 0) & holds
        if is_counted.any():
            self.counted = seqs[is_counted], tokens[is_counted]

    def _open_first_draft(self, token_of: Any, last: Any, picks: Any) -> None:
        """All rows that hold, each with the token behind it."""
        rows = self._rows
        behind = np.append(rows.tokens[1:], NO_TOKEN)
        behind[last] = token_of[last]
        if picks is not _ALL:
            behind[last[~picks]] = self._plan.behind
        fields, seqs = self._state.fields, rows.seqs
        # Where no draft will ever be wanted, the layer has seen none of the rows before.
        may_draft = np.maximum(fields["length"][seqs], fields["num_prompt"][seqs]) + 1
        drafts_end = np.where(may_draft < fields["limit"][seqs], last, -1)
        behind[np.arange(len(behind)) > drafts_end[rows.owners]] = NO_TOKEN
        hidden = np.arange(len(behind), dtype=np.int32)
        self._rows = Rows(rows.seqs, rows.starts, rows.q_starts, behind, hidden)
        self._open_draft(last[picks], rows.seqs[picks])

    def _open_draft(self, last: Any, seqs: Any) -> None:
        """Inputs of a draft body over `_rows`, whose rows `last`, of sequences `seqs`, pick the
        next draft."""
        self._picked, self._drafting = last, seqs
        values = derive(self._rows, self._state, self._page_tokens)
        if len(last):
            about = self._state.fields["length"][seqs] + self._num_drafted + 1
            values |= derive_logits(last, seqs, about, self._state, follows=True)
        self.inputs = StepInputs(values, self._rows.seqs, self._state)

    def draft(self, ids: Any) -> Any:
        """Let the next draft follow, and return it as it follows: i32, one a sequence that picks.

        ids: i32, one each. Then `inputs` are those of the next draft. One behind the limit, or
        behind a missing one, is NO_TOKEN.
        """
        self._num_drafted += 1
        number, seqs, fields = self._num_drafted, self._drafting, self._state.fields
        at = fields["length"][seqs] + number
        holds = (at < fields["limit"][seqs]) & (fields["tokens"][seqs, number - 1] != NO_TOKEN)
        found = np.where(holds, ids, NO_TOKEN).astype(np.int32)
        fields["tokens"][seqs, number] = found
        if number < self._plan.drafts:
            rows = np.arange(len(seqs), dtype=np.int32)
            q_starts = np.arange(len(seqs) + 1, dtype=np.int32)
            hidden = self._picked if number == 1 else rows
            starts = np.minimum(at - 1, fields["limit"][seqs])
            self._rows = Rows(seqs, starts, q_starts, found, hidden.astype(np.int32))
            self._open_draft(rows, seqs)
        return found


def _planned(plan: StepPlan, state: StateTable) -> Rows:
    """The rows that a plan asks for."""
    seqs, is_single = np.array(plan.seqs, np.int32), max(plan.counts) == 1
    q_starts = np.arange(len(seqs) + 1, dtype=np.int32)
    if not is_single:
        np.cumsum(plan.counts, out=q_starts[1:])
    if plan.entry == "extend":
        tokens = np.array(plan.tokens, np.int32)
    elif is_single:
        tokens = state.fields["tokens"][seqs, 0]
    else:
        following = state.fields["tokens"][seqs]
        tokens = following[np.arange(following.shape[1]) < np.diff(q_starts)[:, None]]
    return Rows(seqs, state.fields["length"][seqs], q_starts, tokens, _NONE)


def _last(rows: Rows, token_of: Any, count: Any) -> Any:
    """Each sequence's last row that holds: where `count` rows pick, the first of them, and those
    behind it as long as each has the token that the row before picked."""
    end, most = rows.q_starts[1:], int(count.max(initial=0))
    if most <= 1:
        return end - 1
    drafts = np.arange(1, most)
    exists = drafts < count[:, None]
    at = np.where(exists, (end - count)[:, None] + drafts, 0)
    tokens = rows.tokens[at]
    holds = exists & (tokens != NO_TOKEN) & (tokens == token_of[at - 1])
    accepted = cast("Any", np.cumprod(holds, axis=1)).sum(axis=1)
    return cast("Any", np.where(count > 0, end - count + accepted, end - 1))


def masks_of(plan: StepPlan, count: int) -> Any:
    """The mask of each of `count` logit rows, i32: they lie in the order of the masked rows, -1
    where a row has none."""
    found = np.full(count, -1, np.int32)
    if plan.masked:
        found[rows_of(plan.masked)] = np.arange(plan.num_masked, dtype=np.int32)
    return found


def rows_of(spans: Sequence[Span]) -> Any:
    """The rows of all spans, in order."""
    ranges = [np.arange(first, first + count, dtype=np.int32) for first, count in spans]
    if len(ranges) == 1:
        return ranges[0]
    return np.concatenate(ranges) if ranges else np.empty(0, np.int32)
