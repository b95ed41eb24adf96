"""Random histories of plans over `derive` and the buffers, against the oracle of plain lists.

State and buffers hold junk before they are written, several buckets share a memory, rows come back
to other requests, page lists grow. A mutant is a subclass with another table, buffers or rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, cast

import msgspec
import numpy as np
from step_oracle import Sequences, StepBatch, padded

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.derive import StepInputs
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.backends.runtime.state_table import NUMPY_DTYPES, StateTable
from lostwax.backends.runtime.step_buffers import InputMemory, StepBuffers
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.ir.contract.program import HEADS, Bucket, Entry, Segment
from lostwax.ir.contract.step import STEP_INPUTS, StepResult
from lostwax.ir.contract.step_plan import NewPage, Span, StepPlan, append_span
from lostwax.ir.contract.step_state import STEP_STATE, Enter

PAGE, MAX_REQS, MAX_PAGES, MAX_DRAFTS = 4, 5, 6, 3
JUNK = 77
_Program = tuple[Segment, Bucket]
BODIES: tuple[_Program, ...] = tuple(
    (entry, bucket)
    for entry in cast(tuple[Entry, ...], ("extend", "decode", "draft"))
    for bucket in (Bucket(8, 3, 4), Bucket(24, 3, MAX_PAGES), Bucket(120, MAX_REQS, MAX_PAGES))
)
NUM_ROWS = {"pick": 4, "sample": 9, "score": 5}


PICKED = (3, 4)
"""Few ids, so that drafts are often what is picked."""


@dataclass(slots=True)
class _Live:
    """What the history knows of a sequence."""

    limit: int
    num_pages: int
    decodes: bool = False


class DeriveTrial:
    """One history, step by step."""

    table = StateTable
    buffers = StepBuffers
    rows = StepRows

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._state = self.table(MAX_REQS, MAX_PAGES, MAX_DRAFTS)
        for array in self._state.fields.values():
            array.base[1:] = JUNK  # itself some of them cannot be written
        self._oracle = Sequences(PAGE)
        self._live: dict[int, _Live] = {}
        heads: list[_Program] = [(head, Bucket(rows=NUM_ROWS[head])) for head in HEADS]
        self._bodies = self._over_one_memory(BODIES)
        self._heads = self._over_one_memory(heads)

    def play(self, steps: int) -> None:
        """Every input of every body and head must be the oracle's, and so must the state be when a
        step has run; bad steps must be refused."""
        for _ in range(steps):
            plan = self._plan()
            assert self._state.refusal(plan) == ""
            rows = self.rows(plan, self._state, PAGE)
            drafts: list[Any] = []

            def run(
                batch: StepBatch, rows: StepRows = rows, made: list[Any] = drafts
            ) -> StepResult:
                self._check_inputs(batch, rows.inputs)
                result = self.picked(batch)
                array = np.array(result.ids, np.int32)
                if batch.entry != "draft":
                    rows.advance(array)
                elif result.ids:
                    made.append(rows.draft(array))
                return result

            result = self._oracle.play(plan, run)
            assert result.drafts == (np.stack(drafts, 1).tolist() if drafts else [])
            self._check_state()
            self._check_result(result, plan, len(drafts[0]) if drafts else 0)
            self._refuses()

    def picked(self, batch: StepBatch) -> StepResult:
        """An id for each logit row."""
        return StepResult(ids=[self._rng.choice(PICKED) for _ in batch.logit_rows])

    def _check_inputs(self, batch: StepBatch, inputs: StepInputs) -> None:
        fits = [
            buffers
            for (segment, bucket), buffers in self._bodies
            if segment == batch.entry
            and len(batch.tokens) <= bucket.tokens
            and len(batch.kv_lens) <= bucket.reqs
            and max(batch.kv_lens) <= bucket.pages * PAGE
        ]
        body = self._rng.choice(fits)
        body.fill(inputs)
        _compare(body, padded(batch, *_of(body, self._bodies)))
        head = next(b for (segment, _), b in self._heads if segment == batch.head)
        for start in range(0, len(batch.logit_rows), NUM_ROWS[batch.head]):
            part = slice(start, min(start + NUM_ROWS[batch.head], len(batch.logit_rows)))
            head.fill(inputs, part)
            _compare(head, padded(batch, *_of(head, self._heads), part))

    def _check_result(self, result: StepResult, plan: StepPlan, picking: int) -> None:
        """What the host gets; numpy's is what `play` has seen."""

    def _check_state(self) -> None:
        """Every field of every sequence that lives."""
        for seq, held in self._oracle.rows.items():
            enter = msgspec.structs.asdict(held.enter)
            enter |= {"biased": held.enter.biased, "counted": held.enter.counted}
            enter |= {"pages": held.pages, "length": held.length, "tokens": held.tokens}
            for name, field in STEP_STATE.items():
                found, want = self._state.fields[name][seq], enter[name]
                if field.dims:
                    want = [*want, *[field.padding] * len(found)][: len(found)]
                assert found.tolist() == want, f"{name} of sequence {seq}"

    def _over_one_memory(self, segments: Sequence[_Program]) -> list[tuple[_Program, StepBuffers]]:
        size = max(input_offsets(*each)[1] for each in segments)
        driver = CpuDriver(CPU, no_kernels, {})
        memory = InputMemory(np.full(size, JUNK, np.uint8), driver)
        return [(each, self.buffers(each[0], each[1], memory)) for each in segments]

    def _plan(self) -> StepPlan:
        rng = self._rng
        entering: list[Enter] = []
        for seq in range(1, 1 + MAX_REQS):
            if rng.random() < (0.15 if seq in self._live else 0.4) or not self._live:
                entering.append(self._enter(seq))
        lengths = {seq: held.length for seq, held in self._oracle.rows.items()}
        lengths |= {enter.seq: enter.length for enter in entering}
        going_on = [s for s, live in self._live.items() if lengths[s] < live.limit]
        entry: Literal["extend", "decode"] = rng.choice(("extend", "decode"))
        if entry == "decode" or not going_on:
            decoding = [seq for seq, live in self._live.items() if live.decodes]
            entry, able = ("decode", decoding) if decoding else ("extend", going_on)
        else:
            able = going_on
        if not able:
            entering.append(self._enter(1, at_end=False))
            lengths[1] = entering[-1].length
            entry, able = "extend", [1]
            entering = [e for i, e in enumerate(entering) if e.seq != 1 or i == len(entering) - 1]
        seqs = rng.sample(sorted(able), rng.randint(1, len(able)))
        drafts = rng.choice((0, 1, MAX_DRAFTS))
        counts, new_pages, ends = list[int](), list[NewPage](), list[int]()
        logits, scored, behind = list[Span](), list[Span](), list[int]()
        head = rng.choice(HEADS)
        row = number = 0
        for seq in seqs:
            live, start = self._live[seq], lengths[seq]
            if entry == "decode":
                count = picks = rng.randint(1, 1 + MAX_DRAFTS)
            else:
                count, picks = rng.randint(1, live.limit - start), rng.randint(0, 1)
                live.decodes = bool(picks)
                if head == "score" and rng.random() < 0.5 and count > picks:
                    scores = rng.randint(1, count - picks)
                    append_span(logits, row, scores)
                    append_span(scored, number, scores)
                    number += scores
            append_span(logits, row + count - picks, picks)
            number += picks
            if drafts and not picks:
                behind.append(rng.choice(PICKED))
            counts.append(count)
            ends.append(min(start + count, live.limit))
            # as an engine does: room for the drafts, too, as far as there may be any
            needed = min(ends[-1] + drafts, live.limit)
            for index in range(live.num_pages, -(-needed // PAGE)):
                new_pages.append(NewPage(seq, index, rng.randint(1, 60)))
                live.num_pages = index + 1
            row += count
        return StepPlan(
            entry=entry,
            head=head,
            seqs=tuple(seqs),
            counts=tuple(counts),
            ends=tuple(ends),
            tokens=tuple(rng.choice(PICKED) for _ in range(row)) if entry == "extend" else (),
            entering=tuple(entering),
            new_pages=tuple(new_pages),
            logits=tuple(logits),
            scored=tuple(scored),
            targets=tuple(rng.randint(0, 60) for _, n in scored for _ in range(n)),
            masked=self._masked(number, scored) if head != "pick" else (),
            drafts=drafts,
            draft_head=self._rng.choice(("pick", "sample")),
            behind=tuple(behind),
        )

    def _masked(self, count: int, scored: list[Span]) -> tuple[Span, ...]:
        """Of `count` logit rows, some that pick."""
        picking = {*range(count)} - {first + i for first, n in scored for i in range(n)}
        found, share = list[Span](), self._rng.choice((0, 0.5, 1))
        for number in sorted(picking):
            append_span(found, number, int(self._rng.random() < share))
        return tuple(found)

    def _enter(self, seq: int, *, at_end: bool = True) -> Enter:
        """A request whose first `length` positions are cached; it may get more pages later."""
        rng = self._rng
        limit = rng.randint(1, MAX_PAGES * PAGE)
        length = rng.randint(0, limit if at_end else limit - 1)
        pages = tuple(rng.randint(1, 60) for _ in range(-(-max(length, 1) // PAGE)))
        tokens = tuple(rng.choice((*PICKED, -1)) for _ in range(rng.randint(0, 1 + MAX_DRAFTS)))
        self._live[seq] = _Live(limit, len(pages), decodes=bool(tokens))
        narrowing: dict[str, Any] = {}
        if rng.random() < 0.5:  # most requests ask for none of these
            narrowing = {
                "top_k": rng.choice((0, 3)),
                "top_p": rng.choice((1.0, 0.75)),
                "min_p": rng.choice((0.0, 0.25)),
                "repetition": rng.choice((1.0, 1.25)),
                "frequency": rng.choice((0.0, 0.5)),
                "presence": rng.choice((0.0, -0.5)),
                "bias": rng.choice(((), ((3, 1.5), (7, -2.0)))),
                "ends": rng.choice(((), (5,))),
            }
        return Enter(
            seq=seq,
            pages=pages,
            length=length,
            limit=limit,
            num_prompt=rng.randint(1, limit),
            temperature=rng.choice((0.0, 0.5, 1.25)),
            seed=rng.randint(-(2**31), 2**31 - 1),
            tokens=tokens,
            outputs=tuple(rng.choices(PICKED, k=rng.randint(0, 3))),
            min_outputs=rng.randint(0, limit),
            **narrowing,
        )

    def _refuses(self) -> None:
        """Rows behind the limit, rows twice, more rows than tokens follow, sequences of nobody."""
        seq = self._rng.choice(sorted(self._live))
        left = self._live[seq].limit - self._oracle.rows[seq].length
        good = StepPlan(entry="extend", seqs=(seq,), counts=(1,), ends=(1,), tokens=(0,))
        for change, why in (
            ({"counts": (left + 1,), "tokens": (0,) * (left + 1)}, "limit"),
            ({"seqs": (seq, seq), "counts": (1, 1), "tokens": (0, 0)}, "two places"),
            ({"seqs": (0,)}, "outside 1 to"),
            ({"seqs": (MAX_REQS + 1,)}, "outside 1 to"),
            ({"counts": (2,)}, "1 tokens come for 2 rows"),
            ({"counts": (0,), "tokens": ()}, "has no rows"),
            ({"drafts": MAX_DRAFTS + 1}, "drafts are asked for"),
            ({"entry": "decode", "counts": (MAX_DRAFTS + 2,)}, "more than"),
            ({"logits": ((0, 1),), "masked": ((0, 1),)}, "the head 'pick' looks at none"),
        ):
            refusal = self._state.refusal(msgspec.structs.replace(good, **change))
            assert why in refusal, (why, refusal)


def _of(buffers: StepBuffers, among: list[tuple[_Program, StepBuffers]]) -> _Program:
    return next(each for each, found in among if found is buffers)


def _compare(buffers: StepBuffers, want: dict[str, list[Any]]) -> None:
    """What a program reads in the packed bytes."""
    raw = buffers.memory.device
    for name, values in want.items():
        dtype = NUMPY_DTYPES[STEP_INPUTS[name].dtype]
        expected = np.array(values, dtype)
        start = buffers.offsets[name]
        found = raw[start : start + 4 * prod(expected.shape)].view(dtype)
        assert np.array_equal(found.reshape(expected.shape), expected), (name, found, values)
