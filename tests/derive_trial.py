"""Random histories of plans over `derive` and the buffers, against the oracle of plain lists.

State and buffers hold junk before they are written, several buckets share a memory, rows come back
to other requests, page lists grow. A mutant is a subclass with another table, buffers or `derive`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
import torch
from step_oracle import Sequences, padded

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.runtime.derive import StepInputs, derive
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.backends.runtime.state_table import NUMPY_DTYPES, StateTable
from lostwax.backends.runtime.step_buffers import InputMemory, StepBuffers
from lostwax.ir.contract.program import HEADS, Bucket, Entry, Segment
from lostwax.ir.contract.step import STEP_INPUTS
from lostwax.ir.contract.step_plan import NewPage, Span, StepPlan, append_span
from lostwax.ir.contract.step_state import Enter

PAGE, MAX_REQS, MAX_PAGES = 4, 5, 6
JUNK = 77
_Program = tuple[Segment, Bucket]
BODIES: tuple[_Program, ...] = tuple(
    (entry, bucket)
    for entry in cast(tuple[Entry, ...], ("extend", "decode", "draft"))
    for bucket in (Bucket(8, 3, 4), Bucket(24, 3, MAX_PAGES), Bucket(120, MAX_REQS, MAX_PAGES))
)
NUM_ROWS = {"pick": 4, "sample": 9, "score": 5}


@dataclass(slots=True)
class _Live:
    """What the history knows of a sequence."""

    limit: int
    num_pages: int
    length: int


class DeriveTrial:
    """One history, step by step."""

    table = StateTable
    buffers = StepBuffers

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._state = self.table(MAX_REQS, MAX_PAGES)
        for array in self._state.fields.values():
            array[1:] = JUNK
        self._oracle = Sequences(PAGE)
        self._live: dict[int, _Live] = {}
        heads: list[_Program] = [(head, Bucket(rows=NUM_ROWS[head])) for head in HEADS]
        self._bodies = self._over_one_memory(BODIES)
        self._heads = self._over_one_memory(heads)

    def derive(self, plan: StepPlan, state: StateTable) -> StepInputs:
        """The function under test."""
        return derive(plan, state, PAGE)

    def play(self, steps: int) -> None:
        """Every input of every step must be the oracle's; bad steps must be refused."""
        for _ in range(steps):
            plan = self._plan()
            assert self._state.refusal(plan) == ""
            inputs = self.derive(plan, self._state)
            batch = self._oracle.step(plan)
            fits = [
                buffers
                for (segment, bucket), buffers in self._bodies
                if segment == plan.entry
                and plan.facts.total_q <= bucket.tokens
                and plan.facts.num_reqs <= bucket.reqs
                and plan.facts.max_kv <= bucket.pages * PAGE
            ]
            body = self._rng.choice(fits)
            body.fill(inputs)
            _compare(body, padded(batch, *_of(body, self._bodies)))
            head = next(b for (segment, _), b in self._heads if segment == plan.head)
            for start in range(0, plan.num_logits, NUM_ROWS[plan.head]):
                rows = slice(start, min(start + NUM_ROWS[plan.head], plan.num_logits))
                head.fill(inputs, rows)
                _compare(head, padded(batch, *_of(head, self._heads), rows))
            self._refuses()

    def _over_one_memory(self, segments: Sequence[_Program]) -> list[tuple[_Program, StepBuffers]]:
        size = max(input_offsets(*each)[1] for each in segments)
        driver = cast(CpuDriver, None)  # asked for marks on devices alone
        memory = InputMemory(torch.full((size,), JUNK, dtype=torch.uint8), driver)
        return [(each, self.buffers(each[0], each[1], memory)) for each in segments]

    def _plan(self) -> StepPlan:
        rng = self._rng
        entering: list[Enter] = []
        for seq in range(1, 1 + MAX_REQS):
            if rng.random() < (0.2 if seq in self._live else 0.4) or not self._live:
                entering.append(self._enter(seq))
        seqs = rng.sample(sorted(self._live), rng.randint(1, len(self._live)))
        entry: Entry = rng.choice(("extend", "decode", "draft"))
        starts, counts, new_pages = list[int](), list[int](), list[NewPage]()
        for seq in seqs:
            live = self._live[seq]
            start = rng.randint(0, min(live.length, live.limit - 1))
            counts.append(rng.choice((1, 1, rng.randint(1, live.limit - start))))
            starts.append(start)
            end = start + counts[-1]
            for index in range(live.num_pages, -(-end // PAGE)):
                new_pages.append(NewPage(seq, index, rng.randint(1, 60)))
                live.num_pages = index + 1
            if entry != "draft":
                live.length = end
        total = sum(counts)
        logits, scored, hidden = list[Span](), list[Span](), list[Span]()
        head = rng.choice(HEADS)
        wanted = [row for row in range(total) if rng.random() < 0.5]
        for number, row in enumerate(wanted):
            append_span(logits, row, 1)
            append_span(scored, number, int(head == "score" and rng.random() < 0.5))
        for _ in range(total if entry == "draft" else 0):
            append_span(hidden, rng.randint(0, 99), 1)
        return StepPlan(
            entry=entry,
            head=head,
            seqs=tuple(seqs),
            starts=tuple(starts),
            counts=tuple(counts),
            tokens=tuple(rng.randint(0, 60) for _ in range(total)),
            entering=tuple(entering),
            new_pages=tuple(new_pages),
            logits=tuple(logits),
            scored=tuple(scored),
            targets=tuple(rng.randint(0, 60) for _, n in scored for _ in range(n)),
            hidden=tuple(hidden),
        )

    def _enter(self, seq: int) -> Enter:
        """A request whose first `length` positions are cached; it may get more pages later."""
        rng = self._rng
        limit = rng.randint(1, MAX_PAGES * PAGE)
        length = rng.randint(0, limit)
        pages = tuple(rng.randint(1, 60) for _ in range(-(-max(length, 1) // PAGE)))
        self._live[seq] = _Live(limit, len(pages), length)
        return Enter(
            seq=seq,
            pages=pages,
            length=length,
            limit=limit,
            num_prompt=rng.randint(1, limit),
            temperature=rng.choice((0.0, 0.5, 1.25)),
            top_p=rng.choice((1.0, 0.75)),
            seed=rng.randint(-(2**31), 2**31 - 1),
        )

    def _refuses(self) -> None:
        """A step that leaves a hole, and one behind the limit."""
        seq = self._rng.choice(sorted(self._live))
        live = self._live[seq]
        for start, count, why in (
            (live.length + 1, 1, "hole"),
            (live.length, live.limit - live.length + 1, "limit"),
        ):
            tokens = (0,) * count
            bad = StepPlan(
                entry="extend", seqs=(seq,), starts=(start,), counts=(count,), tokens=tokens
            )
            assert why in self._state.refusal(bad)


def _of(buffers: StepBuffers, among: list[tuple[_Program, StepBuffers]]) -> _Program:
    return next(each for each, found in among if found is buffers)


def _compare(buffers: StepBuffers, want: dict[str, list[Any]]) -> None:
    """What a program reads in the packed bytes."""
    raw = buffers.memory.device.numpy()
    for name, values in want.items():
        dtype = NUMPY_DTYPES[STEP_INPUTS[name].dtype]
        expected = np.array(values, dtype)
        start = buffers.offsets[name]
        found = raw[start : start + 4 * prod(expected.shape)].view(dtype)
        assert np.array_equal(found.reshape(expected.shape), expected), (name, found, values)
