"""A step's inputs in plain lists: what `derive` and the buffers must give, written without them.

`Sequences` reads plans; `StepBatch` is what a body and its head read, whole; `padded` is what a
program reads of it. Tests that write a step down as a batch run it by `plan_of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from lostwax.backends.runtime.mask_gate import Masks
from lostwax.ir.contract.program import HEADS, Bucket, Entry, Head, Segment
from lostwax.ir.contract.step import (
    MAX_DRAFTS,
    STEP_INPUTS,
    TRASH_PAGE,
    StepResult,
    input_shape,
    inputs_of,
)
from lostwax.ir.contract.step_plan import Span, StepPlan, append_span
from lostwax.ir.contract.step_state import Enter


class StepBatch(msgspec.Struct, kw_only=True):
    """A body's and a head's rows with all that they read, fields as in STEP_INPUTS: no padding.

    `seeds`, `counters`, `temperature`, `targets`, `top_k`, `top_p`, `min_p`, penalties
    and their counts, `bias_rows`, `mask_rows` and `bias` have one entry a logit row, the last what
    is added to the logits of some ids. `masks` are what rows may pick from, an entry a mask.
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
    top_k: list[int]
    top_p: list[float]
    min_p: list[float]
    count_rows: list[int]
    recent: list[list[int]]
    repetition: list[float]
    frequency: list[float]
    presence: list[float]
    bias_rows: list[int]
    mask_rows: list[int]
    bias: list[dict[int, float]]
    masks: Masks | None = None
    hidden_rows: list[int] = msgspec.field(default_factory=list[int])
    head: Head = "pick"


Run = Callable[[StepBatch], StepResult]
"""Runs a batch: an id a logit row, and what else a test wants to know."""


@dataclass(slots=True)
class _Sequence:
    enter: Enter
    pages: list[int]
    length: int
    tokens: list[int]
    """Those that follow."""
    said: list[int]
    """What it has picked under heads that look at its penalties."""

    def slot(self, position: int, page_tokens: int) -> int:
        return self.pages[position // page_tokens] * page_tokens + position % page_tokens


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of one sequence, from `start` on; -1 for a row without a token."""

    owner: _Sequence
    start: int
    tokens: list[int]
    hidden: list[int]


@dataclass(frozen=True, slots=True)
class _Logit:
    """A row whose logits are those of the token at position `about`, with its target."""

    owner: _Sequence
    row: int
    about: int
    target: int = -1
    mask: int = -1


class Sequences:
    """The state that plans leave, as lists."""

    def __init__(self, page_tokens: int) -> None:
        self._page_tokens = page_tokens
        self.rows: dict[int, _Sequence] = {}

    def play(self, plan: StepPlan, run: Run, masks: Masks | None = None) -> StepResult:
        """Change the state as the plan says, and run its step with its drafts."""
        batch, groups = self._open(plan)
        batch.masks = masks
        result = run(batch)
        ids = dict(zip(batch.logit_rows, result.ids, strict=True))
        scored = {batch.logit_rows[number] for number in _rows(plan.scored)}
        behind = iter(plan.behind)
        next_groups, logits = list[_Group](), list[_Logit]()
        row = 0
        for group in groups:
            mine = range(row, row + len(group.tokens))
            picks = [r for r in mine if r in ids and r not in scored]
            last = mine.stop - 1
            if picks:
                last = picks[0]
                while last + 1 in picks and group.tokens[last + 1 - row] == ids[last] >= 0:
                    last += 1
            owner, follows = group.owner, [ids[last]] if picks else []
            if plan.head != "pick" and picks:
                owner.said += [ids[r] for r in range(picks[0], last + 1)]
            owner.length = min(group.start + last + 1 - row, owner.enter.limit)
            owner.tokens = follows
            if plan.drafts:
                stands = follows[0] if picks else next(behind)
                tokens = [*group.tokens[1 : last + 1 - row], stands]
                limit = owner.enter.limit
                if max(owner.length, owner.enter.num_prompt) + 1 >= limit:
                    tokens = []  # no draft will ever be wanted
                tokens += [-1] * (len(mine) - len(tokens))
                next_groups.append(_Group(owner, group.start, tokens, list(mine)))
                if picks:
                    logits.append(_Logit(owner, last, owner.length + 1))
            row = mine.stop
        if plan.drafts:
            result.drafts = self._draft(plan, run, next_groups, logits)
        return result

    def _draft(
        self, plan: StepPlan, run: Run, groups: list[_Group], logits: list[_Logit]
    ) -> list[list[int]]:
        """The drafts of each sequence that picks."""
        head = plan.draft_head
        made: list[list[int]] = [[] for _ in logits]
        for number in range(1, plan.drafts + 1):
            found = run(self._batch("draft", head, groups, logits))
            if not logits:
                break
            groups, before = [], logits
            logits = []
            for i, (logit, token) in enumerate(zip(before, found.ids, strict=True)):
                owner = logit.owner
                is_missing = owner.length + number >= owner.enter.limit or owner.tokens[-1] < 0
                owner.tokens.append(-1 if is_missing else token)
                made[i].append(owner.tokens[-1])
                start = min(owner.length + number - 1, owner.enter.limit)
                groups.append(_Group(owner, start, owner.tokens[-1:], [logit.row]))
                logits.append(_Logit(owner, i, owner.length + number + 1))
        return made

    def step(self, plan: StepPlan) -> StepBatch:
        """Change the state as the plan says before its rows see it, and write them down."""
        return self._open(plan)[0]

    def _open(self, plan: StepPlan) -> tuple[StepBatch, list[_Group]]:
        for enter in plan.entering:
            self.rows[enter.seq] = _Sequence(
                enter, list(enter.pages), enter.length, list(enter.tokens), []
            )
        for new in plan.new_pages:
            pages = self.rows[new.seq].pages
            pages += [TRASH_PAGE] * (new.index + 1 - len(pages))
            pages[new.index] = new.page
        assert len(plan.ends) == len(plan.seqs)
        groups: list[_Group] = []
        row, of_row = 0, list[tuple[_Sequence, int]]()
        for seq, count in zip(plan.seqs, plan.counts, strict=True):
            owner = self.rows[seq]
            if plan.entry == "extend":
                tokens = list(plan.tokens[row : row + count])
            else:
                tokens = [*owner.tokens, *[-1] * count][:count]
            groups.append(_Group(owner, owner.length, tokens, []))
            end, limit = plan.ends[len(groups) - 1], owner.enter.limit
            assert min(owner.length + count, limit) <= end <= limit, "a bound that does not hold"
            of_row += [(owner, owner.length + i) for i in range(count)]
            row += count
        targets = dict(zip(_rows(plan.scored), plan.targets, strict=True))
        mask_of = {number: i for i, number in enumerate(_rows(plan.masked))}
        assert not plan.masked or plan.head != "pick", "this head looks at no mask"
        assert not mask_of.keys() & targets.keys(), "a row that picks nothing waits for a mask"
        logits: list[_Logit] = []
        for number, wanted in enumerate(_rows(plan.logits)):
            owner, position = of_row[wanted]
            target, mask = targets.get(number, -1), mask_of.pop(number, -1)
            logits.append(_Logit(owner, wanted, position + 1, target, mask))
        assert not mask_of, "a row that the step has not waits for a mask"
        return self._batch(plan.entry, plan.head, groups, logits), groups

    def _batch(
        self, entry: Entry, head: Head, groups: list[_Group], logits: list[_Logit]
    ) -> StepBatch:
        batch = StepBatch(
            entry=entry, head=head, tokens=[], positions=[], slots=[], q_starts=[0], kv_lens=[],
            page_table=[], logit_rows=[], temperature=[], seeds=[], counters=[], targets=[],
            top_k=[], top_p=[], min_p=[], count_rows=[], recent=[], repetition=[], frequency=[],
            presence=[], bias_rows=[], mask_rows=[], bias=[],
            hidden_rows=[],
        )  # fmt: skip
        for group in groups:
            owner, end = group.owner, group.start
            for position, token in enumerate(group.tokens, group.start):
                is_real = token >= 0 and position < owner.enter.limit
                batch.tokens.append(token if is_real else -1)
                batch.positions.append(position if is_real else -1)
                batch.slots.append(owner.slot(position, self._page_tokens) if is_real else 0)
                end += is_real
            batch.hidden_rows += group.hidden
            batch.q_starts.append(len(batch.tokens))
            batch.kv_lens.append(end)
            batch.page_table.append(list(owner.pages))
        for logit in logits:
            enter, is_scored = logit.owner.enter, logit.target >= 0
            batch.logit_rows.append(logit.row)
            batch.temperature.append(0.0 if is_scored else enter.temperature)
            batch.top_k.append(0 if is_scored else enter.top_k)
            batch.top_p.append(1.0 if is_scored else enter.top_p)
            batch.min_p.append(0.0 if is_scored else enter.min_p)
            batch.seeds.append(enter.seed)
            batch.counters.append(max(logit.about - enter.num_prompt, 0))
            is_counted = not is_scored and bool(enter.counted)
            batch.count_rows.append(enter.seq if is_counted else -1)
            number = logit.about - logit.owner.length - 1
            drafts = logit.owner.tokens[1 : 1 + number] if is_counted and entry != "extend" else []
            batch.recent.append([*drafts, *[-1] * MAX_DRAFTS][:MAX_DRAFTS])
            batch.repetition.append(1.0 if is_scored else enter.repetition)
            batch.frequency.append(0.0 if is_scored else enter.frequency)
            batch.presence.append(0.0 if is_scored else enter.presence)
            has_bias = not is_scored and (enter.bias or enter.ends)
            is_early = batch.counters[-1] < enter.min_outputs
            batch.bias_rows.append(2 * enter.seq + is_early if has_bias else -1)
            batch.bias.append(dict(enter.bias) if has_bias else {})
            if has_bias and is_early:
                batch.bias[-1] |= dict.fromkeys(enter.ends, -math.inf)
            batch.targets.append(logit.target)
            batch.mask_rows.append(logit.mask)
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
        if width:
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
    assert batch.entry != "draft", "drafts follow a step"
    entering: list[Enter] = []
    logits, scored, masked = list[Span](), list[Span](), list[Span]()
    for number, (row, target) in enumerate(zip(batch.logit_rows, batch.targets, strict=True)):
        append_span(logits, row, 1)
        append_span(scored, number, int(target >= 0))
        append_span(masked, number, int(batch.mask_rows[number] >= 0))
    is_extend = batch.entry == "extend"
    for i, (first, end) in enumerate(zip(batch.q_starts, batch.q_starts[1:], strict=False)):
        mine = [n for n, row in enumerate(batch.logit_rows) if first <= row < end]
        last = mine[-1] if mine else None
        picks = last is not None and batch.targets[last] < 0
        entering.append(
            Enter(
                seq=1 + i,
                pages=tuple(batch.page_table[i]),
                length=batch.positions[first],
                limit=batch.kv_lens[i],
                num_prompt=0
                if last is None
                else batch.positions[batch.logit_rows[last]] + 1 - batch.counters[last],
                temperature=batch.temperature[last] if picks and last is not None else 0.0,
                top_k=batch.top_k[last] if picks and last is not None else 0,
                top_p=batch.top_p[last] if picks and last is not None else 1.0,
                min_p=batch.min_p[last] if picks and last is not None else 0.0,
                seed=0 if last is None else batch.seeds[last],
                repetition=batch.repetition[last] if picks and last is not None else 1.0,
                frequency=batch.frequency[last] if picks and last is not None else 0.0,
                presence=batch.presence[last] if picks and last is not None else 0.0,
                bias=() if last is None else tuple(batch.bias[last].items()),
                tokens=() if is_extend else tuple(batch.tokens[first:end]),
            )
        )
    plan = StepPlan(
        entry=batch.entry,
        head=batch.head,
        seqs=tuple(range(1, 1 + len(batch.kv_lens))),
        counts=tuple(
            end - first for first, end in zip(batch.q_starts, batch.q_starts[1:], strict=False)
        ),
        ends=tuple(batch.kv_lens),
        tokens=tuple(batch.tokens) if is_extend else (),
        entering=tuple(entering),
        logits=tuple(logits),
        scored=tuple(scored),
        targets=tuple(target for target in batch.targets if target >= 0),
        masked=tuple(masked),
    )
    assert Sequences(page_tokens).step(plan) == batch, "no plan gives this batch"
    return plan
