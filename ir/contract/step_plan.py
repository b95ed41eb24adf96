"""One step as the engine asks for it: what changed, in kilobytes. Knows no scheduler, no inputs."""

from __future__ import annotations

import msgspec

from lostwax.ir.contract.program import Entry, Head, StepFacts
from lostwax.ir.contract.step_state import Enter

Span = tuple[int, int]
"""First row and number of rows that follow each other."""


class NewPage(msgspec.Struct, frozen=True, array_like=True):
    """`seq` gets `page` as number `index` of its list."""

    seq: int
    index: int
    page: int


class StepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A step over the sequences' state. Rows are flat over `seqs`, in their order.

    Sequence i has `counts[i]` rows at positions `starts[i]` and on; `starts` are absolute, since
    after rejected drafts a sequence goes back. `tokens` are the rows' tokens; in a draft step, row
    t has the token behind its position: MTP's slot i sees token i + 1, and `hidden` are the rows of
    the hidden state that the rows continue. `logits` are the rows whose logits are wanted. Those of
    them in `scored` (numbers of logit rows) score the `targets`, one each; all others pick an
    output. `head` is the least that gives every row what it wants.

    `entering` and `new_pages` change the state before the rows see it; afterwards `length` of every
    sequence of an extend or decode step is the end of its rows.
    """

    entry: Entry
    head: Head = "pick"
    seqs: tuple[int, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    tokens: tuple[int, ...]
    entering: tuple[Enter, ...] = ()
    new_pages: tuple[NewPage, ...] = ()
    logits: tuple[Span, ...] = ()
    scored: tuple[Span, ...] = ()
    targets: tuple[int, ...] = ()
    hidden: tuple[Span, ...] = ()

    @property
    def num_logits(self) -> int:
        """Rows whose logits are wanted."""
        return sum(count for _, count in self.logits)

    @property
    def facts(self) -> StepFacts:
        """What guards may ask about the step."""
        ends = [start + count for start, count in zip(self.starts, self.counts, strict=True)]
        return StepFacts(
            num_reqs=len(self.seqs),
            max_q=max(self.counts),
            total_q=len(self.tokens),
            max_kv=max(ends),
            total_kv=sum(ends),
        )


def append_span(spans: list[Span], first: int, count: int) -> None:
    """Add rows behind those of `spans`, as one span with the last where they follow it."""
    if not count:
        return
    if spans and sum(spans[-1]) == first:
        spans[-1] = (spans[-1][0], spans[-1][1] + count)
    else:
        spans.append((first, count))
