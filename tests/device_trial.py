"""Random histories of plans through `DeviceStep` itself, over a driver that runs its kernels.

Programs have no layers; what their heads give is drawn. Results are heard several steps late, and
must be those of their own step.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from derive_trial import MAX_DRAFTS, MAX_PAGES, MAX_REQS, NUM_ROWS, PAGE, DeriveTrial
from msgspec import structs
from step_oracle import StepBatch

from lostwax.backends.gpu_kernels.lowerings.step import StepLaunches
from lostwax.backends.runtime.bias_state import BiasState
from lostwax.backends.runtime.bound_program import BoundProgram, Memory
from lostwax.backends.runtime.count_state import CountState
from lostwax.backends.runtime.device_step import DeviceStep
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.backends.runtime.mask_gate import Masks
from lostwax.backends.runtime.mask_state import MaskState
from lostwax.backends.runtime.replay_step import BoundStage
from lostwax.backends.runtime.state_table import StateTable
from lostwax.backends.runtime.step_buffers import InputMemory
from lostwax.backends.runtime.ticket import Held, Started
from lostwax.ir.contract.biases import BIASES
from lostwax.ir.contract.counts import COUNTS
from lostwax.ir.contract.masks import MASKS, num_masks
from lostwax.ir.contract.program import (
    HEADS,
    SEGMENTS,
    Bucket,
    Guard,
    Program,
    Segment,
    View,
)
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_layout import (
    PLAN,
    RESULT_BOX,
    RESULT_WIDTHS,
    SENT_BOX,
    SEQUENCES,
    StepLayout,
)
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import STEP_STATE, Enter

MAX_ROWS = MAX_REQS * MAX_PAGES * PAGE
VOCAB = 9
LAYOUT = StepLayout(MAX_REQS, MAX_PAGES, MAX_DRAFTS, MAX_ROWS, VOCAB)
BODY = Bucket(tokens=MAX_ROWS + 3, reqs=MAX_REQS + 1, pages=MAX_PAGES)
BUCKETS: dict[Segment, Bucket] = {
    segment: Bucket(rows=NUM_ROWS[segment]) if segment in HEADS else BODY for segment in SEGMENTS
}
FLOATS = ("logprobs", "target_logprobs", "top_logprobs")
JUNK = 77
ARENA = 8192
MOST_UNHEARD = 7
WORDS = 3
"""Of a mask."""


@dataclass
class Unheard:
    """A step whose result nobody has read, and what it must be."""

    started: Started
    want: dict[str, list[Any]]
    drafts: list[list[int]]
    programs: tuple[str, str]


@dataclass
class Script:
    """What the heads of a step give, in order, and what of it the host must get."""

    ids: deque[list[int]]
    is_main: bool = True
    given: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])


def program(around: StepLaunches, segment: Segment) -> Program:
    """One without layers."""
    bucket, outputs = BUCKETS[segment], dict[str, View]()
    names = RESULT_WIDTHS if segment == "score" else ("ids", "logprobs")
    for i, name in enumerate(names if segment in HEADS else ()):
        width = RESULT_WIDTHS[name]
        shape = (bucket.rows, width) if width > 1 else (bucket.rows,)
        outputs[name] = View(
            space="arena", name="", dtype="f32" if name in FLOATS else "i32", shape=shape,
            strides=(width, 1)[-len(shape) :], offset=1024 * i,
        )  # fmt: skip
    bare = Program(
        segment=segment, bucket=bucket, guard=Guard("any"), arena_bytes=ARENA,
        prepare=(), blocks={}, calls=(), outputs=outputs,
    )  # fmt: skip
    return structs.replace(bare, prepare=around.before(bare), finish=around.behind(bare))


class DeviceTrial(DeriveTrial):
    """Histories that are played by numpy, and once more by the device."""

    def __init__(self, rng: random.Random, around: StepLaunches, driver: Driver) -> None:
        super().__init__(rng)
        self._numbers = np.random.default_rng(rng.randrange(2**32))
        self._calls: list[list[int]] = []
        self._unheard: deque[Unheard] = deque()
        self._script = Script(deque())
        programs = {segment: program(around, segment) for segment in BUCKETS}
        sizes = {
            PLAN: LAYOUT.plan_bytes, SEQUENCES: LAYOUT.sequences_bytes,
            SENT_BOX: LAYOUT.sent_box.num_bytes, RESULT_BOX: LAYOUT.result_box.num_bytes,
            MASKS: 4 * WORDS * num_masks(MAX_REQS, MAX_DRAFTS),
            COUNTS: 4 * VOCAB * (MAX_REQS + 1),
            BIASES: 4 * VOCAB * 2 * (MAX_REQS + 1),
        }  # fmt: skip
        self._memory = driver.memory
        states = {name: driver.allocate(size) for name, size in sizes.items()}
        for state in states.values():
            state[:] = JUNK
        inputs = max(input_offsets(segment, bucket)[1] for segment, bucket in BUCKETS.items())
        memory = Memory(
            driver.allocate(ARENA), InputMemory(driver.allocate(inputs), driver),
            InputMemory(driver.allocate(inputs), driver), {}, {}, states, driver.allocate(0),
        )  # fmt: skip
        self._bound = {s: BoundProgram(p, memory, driver, False) for s, p in programs.items()}
        for head in HEADS:
            self._bound[head].replay = partial(self._replay_head, self._bound[head])
        walk = self._bound["draft"].replay
        self._bound["draft"].replay = partial(self._replay_draft, walk)
        self._masks = self._words(states[MASKS]).reshape(-1, WORDS)
        self._wanted_masks: Masks | None = None
        """What the masks must be when a head looks at them."""
        table = StateTable(MAX_REQS, MAX_PAGES, MAX_DRAFTS)
        masks = MaskState(states[MASKS], driver)
        biases = BiasState(states[BIASES], VOCAB, driver)
        self._biases = self._words(states[BIASES]).view(np.float32).reshape(-1, VOCAB)
        counts = CountState(states[COUNTS], VOCAB, driver)
        self._counts = self._words(states[COUNTS]).reshape(-1, VOCAB)
        self._device = DeviceStep(LAYOUT, memory, table, masks, biases, counts, driver)
        self._device.reset()

    def _words(self, buffer: Any) -> Any:
        """i32 over a buffer, whatever made it."""
        return self._memory.array(buffer).view(np.int32)

    def picked(self, batch: StepBatch) -> StepResult:
        """Noted, for the device to pick the same."""
        result = super().picked(batch)
        self._calls.append(result.ids)
        return result

    def hear_all(self) -> None:
        """Read every result that is left."""
        while self._unheard:
            self._hear()

    def _replay_head(self, head: BoundProgram) -> None:
        """Derive, give what is drawn, take over."""
        if self._wanted_masks is not None:
            held = self._masks[: len(self._wanted_masks)]
            assert np.array_equal(held, self._wanted_masks), "the head ran without its masks"
        split, rows = len(head.program.prepare), head.program.bucket.rows
        for launch in head.launches[:split]:
            launch()
        ids, rest = self._script.ids[0][:rows], self._script.ids[0][rows:]
        self._script.ids[0] = rest
        if not rest:
            self._script.ids.popleft()
        for name, place in head.outputs.items():
            out = self._memory.array_at(place)
            out[...] = self._numbers.integers(0, 1000, out.shape)
            if name == "ids":
                out[: len(ids)] = ids
            if self._script.is_main:
                self._script.given.setdefault(name, []).extend(out[: len(ids)].tolist())
        for launch in head.launches[split:]:
            launch()

    def _replay_draft(self, walk: Any) -> None:
        self._script.is_main = False
        walk()

    def _check_result(self, result: StepResult, plan: StepPlan, picking: int) -> None:
        (main, *drafts), self._calls = self._calls, []
        self._script = Script(deque([main, *(ids for ids in drafts if ids)]))
        head = (self._bound[plan.draft_head],) if plan.num_picking else ()
        behind = (self._bound["draft"], *head)
        stages = [(self._bound[plan.entry], self._bound[plan.head]), *[behind] * len(drafts)]
        if self._rng.random() < 0.2:
            self._break_off(stages, plan)
        started = self._finished(self._device.start(stages, plan), plan)
        assert not self._script.ids, "a head was not replayed"
        names = RESULT_WIDTHS if plan.head == "score" else ("ids", "logprobs")
        want = {name: self._script.given.get(name, [])[: len(main)] for name in names}
        programs = self._bound[plan.entry].program.name, self._bound[plan.head].program.name
        programs = (programs[0], programs[1] if main else "")
        self._unheard.append(Unheard(started, want, result.drafts, programs))
        for seq, held in self._oracle.rows.items():
            for name in STEP_STATE:
                found = self._memory.array_at(self._device.fields[name])[seq]
                assert np.array_equal(found, self._state.fields[name][seq]), f"{name} of {seq}"
            if held.enter.biased:
                self._check_bias(held.enter)
            if held.enter.counted:
                want = np.bincount([*held.enter.outputs, *held.said], minlength=VOCAB)
                found = self._counts[seq]
                assert np.array_equal(found, 2 * want), f"counts of {seq}"
        while self._unheard and (self._rng.random() < 0.35 or len(self._unheard) > MOST_UNHEARD):
            self._hear()

    def _check_bias(self, enter: Enter) -> None:
        """Both rows of a sequence, whatever they held before."""
        want = np.zeros((2, VOCAB), np.float32)
        for token, added in enter.bias:
            want[:, token] = added
        want[1, list(enter.ends)] = -np.inf
        found = self._biases[2 * enter.seq : 2 * enter.seq + 2]
        assert np.array_equal(found, want), f"the bias of {enter.seq}"

    def _finished(self, begun: Started | Held, plan: StepPlan) -> Started:
        """Bring masks where rows wait for them, before which no head has run."""
        assert isinstance(begun, Held) == bool(plan.masked)
        if isinstance(begun, Started):
            return begun
        assert not self._script.given, "a head ran before its masks were there"
        masks = self._numbers.integers(0, 1000, (plan.num_masked, WORDS)).astype(np.int32)
        self._wanted_masks = masks.copy()
        started = begun.finish(masks)
        masks.fill(JUNK)  # it was copied
        self._wanted_masks = None
        return started

    def _break_off(self, stages: Sequence[BoundStage], plan: StepPlan) -> None:
        """The body raises while it is enqueued, before the device has counted the step or behind
        that; what comes next must not be a step off."""
        body, has_begun = stages[0][0], self._rng.random() < 0.5
        replay = body.replay

        def broken() -> None:
            if has_begun:
                replay()
            raise ZeroDivisionError("planted")

        body.replay = broken
        with suppress(ZeroDivisionError):
            self._device.start(stages, plan)
        body.replay = replay

    def _hear(self) -> None:
        unheard = self._unheard.popleft()
        result = unheard.started.read()
        for name, values in unheard.want.items():
            assert getattr(result, name) == values, name
        assert result.drafts == unheard.drafts
        assert (result.program, result.head) == unheard.programs


def _shift_masks() -> None:
    write = MaskState.write

    def shifted(self: MaskState, masks: Masks) -> None:
        write(self, np.roll(masks, 1, axis=0))

    MaskState.write = shifted


def _start_heads_early() -> None:
    start = DeviceStep.start

    def early(self: DeviceStep, stages: Sequence[BoundStage], plan: StepPlan) -> Started | Held:
        begun = start(self, stages, plan)
        if isinstance(begun, Started):
            return begun
        started = begun.finish(np.zeros((plan.num_masked, WORDS), np.int32))
        return Held(lambda _: started)

    DeviceStep.start = early


FAULTS = {
    "masks are shifted by a row": _shift_masks,
    "heads start before masks come": _start_heads_early,
}
