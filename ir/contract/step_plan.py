"""One step as the engine asks for it: what changed, in kilobytes. Knows no scheduler, no inputs."""

from __future__ import annotations

from typing import Literal

import msgspec

from lostwax.ir.contract.program import Head, StepFacts
from lostwax.ir.contract.step_state import Enter

Span = tuple[int, int]
"""First row and number of rows that follow each other."""


class NewPage(msgspec.Struct, frozen=True, array_like=True):
    """`seq` gets `page` as number `index` of its list."""

    seq: int
    index: int
    page: int


class Move(msgspec.Struct, frozen=True, array_like=True):
    """What `page` holds, in all planes, is copied to page `slot` of host memory, or back."""

    page: int
    slot: int
    is_restore: bool


class StepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A step over the sequences' state. Rows are flat over `seqs`, in their order.

    Sequence i has `counts[i]` rows from its cached length on. Those of an extend step have the
    `tokens`; those of a decode step the tokens that follow in the state, and none where the state
    has none. A row at or behind its sequence's limit has no token either. `ends` bound from above
    how many positions each sequence has behind the step: what guards ask.

    `logits` are the rows whose logits are wanted. Those of them in `scored` (numbers of logit rows)
    score the `targets`, one each; all others pick, and are the last rows of their sequence: one in
    an extend step, all in a decode step. `head` is the least that gives every row what it wants.

    `masked` (numbers of logit rows, of those that pick) wait for masks of the ids that they may
    pick, one each, in their order: head and drafts are held back until the step's ticket gets them.
    Only `sample` and `score` look at masks, and no draft has one.

    Afterwards a sequence's length is the end of its rows, but for drafts that were not accepted: a
    row's token behind the first that picks holds if it is what the row before it picked. What
    follows is the last pick, and up to `drafts` tokens of the MTP layer, which `draft_head` picks:
    `pick` or `sample`, as what is drafted is verified. That layer sees all rows
    of a step with drafts; `behind` is then the token behind the last row of each sequence that
    picks nothing.

    `entering` and `new_pages` change the state before the rows see it. `moves` are made in their
    order, behind the steps before and ahead of the step's own work: they may be of pages that no
    sequence of the step has.
    """

    entry: Literal["extend", "decode"]
    head: Head = "pick"
    seqs: tuple[int, ...]
    counts: tuple[int, ...]
    ends: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    entering: tuple[Enter, ...] = ()
    new_pages: tuple[NewPage, ...] = ()
    moves: tuple[Move, ...] = ()
    logits: tuple[Span, ...] = ()
    scored: tuple[Span, ...] = ()
    targets: tuple[int, ...] = ()
    masked: tuple[Span, ...] = ()
    drafts: int = 0
    draft_head: Head = "pick"
    behind: tuple[int, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows of all sequences."""
        return sum(self.counts)

    @property
    def num_logits(self) -> int:
        """Rows whose logits are wanted."""
        return sum([count for _, count in self.logits])

    @property
    def num_masked(self) -> int:
        """Rows that wait for a mask."""
        return sum([count for _, count in self.masked])

    @property
    def num_picking(self) -> int:
        """Sequences that pick an output."""
        if self.entry == "decode":
            return len(self.seqs)
        return self.num_logits - sum([count for _, count in self.scored])

    @property
    def facts(self) -> StepFacts:
        """What guards may ask about the step."""
        return StepFacts(
            num_reqs=len(self.seqs),
            max_q=max(self.counts),
            total_q=self.num_rows,
            max_kv=max(self.ends),
            total_kv=sum(self.ends),
        )


def append_span(spans: list[Span], first: int, count: int) -> None:
    """Add rows behind those of `spans`, as one span with the last where they follow it."""
    if not count:
        return
    if spans and sum(spans[-1]) == first:
        spans[-1] = (spans[-1][0], spans[-1][1] + count)
    else:
        spans.append((first, count))
