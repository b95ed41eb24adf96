"""A step's inputs in plain lists: what `derive` and the buffers must give, written without them.

`Sequences` reads plans; `StepBatch` is what they ask for, whole; `padded` is what a program reads
of it. Tests that write a step down as a batch run it by `plan_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from lostwax.ir.contract.program import HEADS, Bucket, Entry, Head, Segment
from lostwax.ir.contract.step import STEP_INPUTS, TRASH_PAGE, input_shape, inputs_of
from lostwax.ir.contract.step_plan import Span, StepPlan, append_span
from lostwax.ir.contract.step_state import Enter


class StepBatch(msgspec.Struct, kw_only=True):
    """One step with all that it reads: real rows only, fields as in STEP_INPUTS.

    `seeds`, `counters`, `temperature`, `targets` and `top_p` have one entry a logit row.
    """

    entry: Entry
    tokens: list[int]
    positions: list[int]
    slots: list[int]
    q_starts: list[int]
    kv_lens: list[int]
    page_table: list[list[int]]
    logit_rows: list[int]
    temperature: list[float]
    seeds: list[int]
    counters: list[int]
    targets: list[int]
    top_p: list[float]
    hidden_rows: list[int] = msgspec.field(default_factory=list[int])
    head: Head = "pick"


@dataclass(slots=True)
class _Sequence:
    pages: list[int]
    enter: Enter

    def slot(self, position: int, page_tokens: int) -> int:
        return self.pages[position // page_tokens] * page_tokens + position % page_tokens


class Sequences:
    """The state that plans leave, as lists."""

    def __init__(self, page_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._rows: dict[int, _Sequence] = {}

    def step(self, plan: StepPlan) -> StepBatch:
        """Change the state as the plan says and write its step down."""
        for enter in plan.entering:
            self._rows[enter.seq] = _Sequence(list(enter.pages), enter)
        for new in plan.new_pages:
            pages = self._rows[new.seq].pages
            pages += [TRASH_PAGE] * (new.index + 1 - len(pages))
            pages[new.index] = new.page
        batch = StepBatch(
            entry=plan.entry, head=plan.head,
            tokens=list(plan.tokens), hidden_rows=_rows(plan.hidden),
            positions=[], slots=[], q_starts=[0], kv_lens=[], page_table=[], logit_rows=[],
            temperature=[], seeds=[], counters=[], targets=[], top_p=[],
        )  # fmt: skip
        owners: list[_Sequence] = []
        for seq, start, count in zip(plan.seqs, plan.starts, plan.counts, strict=True):
            owner = self._rows[seq]
            for position in range(start, start + count):
                owners.append(owner)
                batch.positions.append(position)
                batch.slots.append(owner.slot(position, self._page_tokens))
            batch.q_starts.append(len(owners))
            batch.kv_lens.append(start + count)
            batch.page_table.append(list(owner.pages))
        assert len(owners) == len(plan.tokens)
        targets = dict(zip(_rows(plan.scored), plan.targets, strict=True))
        for number, row in enumerate(_rows(plan.logits)):
            enter, target = owners[row].enter, targets.get(number)
            # The logits of position p are about token p + 1, those of a draft row about p + 2.
            about = batch.positions[row] + (2 if plan.entry == "draft" else 1)
            batch.logit_rows.append(row)
            batch.temperature.append(enter.temperature if target is None else 0.0)
            batch.top_p.append(enter.top_p if target is None else 1.0)
            batch.seeds.append(enter.seed)
            batch.counters.append(max(about - enter.num_prompt, 0))
            batch.targets.append(-1 if target is None else target)
        return batch


def _rows(spans: tuple[Span, ...]) -> list[int]:
    return [first + i for first, count in spans for i in range(count)]


def padded(
    batch: StepBatch, segment: Segment, bucket: Bucket, rows: slice = slice(None)
) -> dict[str, list[Any]]:
    """What a segment's program reads; a head takes `rows` of what the batch asks for."""
    found: dict[str, list[Any]] = {}
    for name in inputs_of(segment):
        size, *width = input_shape(name, bucket)
        padding: Any = STEP_INPUTS[name].padding
        if name == "num_rows":
            found[name] = [len((batch.logit_rows if segment in HEADS else batch.tokens)[rows])]
            continue
        values: list[Any] = getattr(batch, name)[rows]
        if name == "page_table":
            (pages,) = width
            values = [[*row, *[padding] * pages][:pages] for row in values]
            padding = [padding] * pages
        elif name == "q_starts":
            padding = values[-1]
        assert len(values) <= size
        found[name] = [*values, *[padding] * (size - len(values))]
    return found


def plan_of(batch: StepBatch, page_tokens: int = 64) -> StepPlan:
    """A plan that gives exactly this batch: its requests enter with all that it says of them."""
    entering: list[Enter] = []
    logits, scored, hidden = list[Span](), list[Span](), list[Span]()
    behind = 2 if batch.entry == "draft" else 1
    for number, (row, target) in enumerate(zip(batch.logit_rows, batch.targets, strict=True)):
        append_span(logits, row, 1)
        append_span(scored, number, int(target >= 0))
    for row in batch.hidden_rows:
        append_span(hidden, row, 1)
    starts = [batch.positions[row] for row in batch.q_starts[:-1]]
    for i, (first, end) in enumerate(zip(batch.q_starts, batch.q_starts[1:], strict=False)):
        mine = [n for n, row in enumerate(batch.logit_rows) if first <= row < end]
        last = mine[-1] if mine else None
        picks = last is not None and batch.targets[last] < 0
        entering.append(
            Enter(
                seq=1 + i,
                pages=tuple(batch.page_table[i]),
                length=starts[i],
                limit=batch.kv_lens[i],
                num_prompt=0
                if last is None
                else batch.positions[batch.logit_rows[last]] + behind - batch.counters[last],
                temperature=batch.temperature[last] if picks and last is not None else 0.0,
                top_p=batch.top_p[last] if picks and last is not None else 1.0,
                seed=0 if last is None else batch.seeds[last],
            )
        )
    plan = StepPlan(
        entry=batch.entry,
        head=batch.head,
        seqs=tuple(range(1, 1 + len(batch.kv_lens))),
        starts=tuple(starts),
        counts=tuple(
            end - first for first, end in zip(batch.q_starts, batch.q_starts[1:], strict=False)
        ),
        tokens=tuple(batch.tokens),
        entering=tuple(entering),
        logits=tuple(logits),
        scored=tuple(scored),
        targets=tuple(target for target in batch.targets if target >= 0),
        hidden=tuple(hidden),
    )
    assert Sequences(page_tokens).step(plan) == batch, "no plan gives this batch"
    return plan
