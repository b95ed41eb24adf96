"""Where a step's plan and the sequences' state lie in device memory. Knows no device.

On targets whose kernels derive a step's inputs, the host sends the plan as numbers of 32 bits and
the device keeps the state: `PLAN` and `SEQUENCES` are states that programs name, as `HIDDEN` is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import msgspec

from lostwax.ir.contract.artifact import Limits
from lostwax.ir.contract.counts import COUNTS
from lostwax.ir.contract.program import HEADS, Segment
from lostwax.ir.contract.step import MAX_RANKED
from lostwax.ir.contract.step_state import STEP_STATE
from lostwax.ir.contract.view import View

PLAN = "plan"
SEQUENCES = "sequences"

SENT_BOX = "sent"
RESULT_BOX = "results"
"""Host memory that the device reads plans from and writes results to: a place for each of the
last `PLACES` steps, in turn."""

STEP_OP = "step."
"""What the step's launches are called in traces and errors begins so; nothing else does."""

BODY_STEP = ("step.receive", "step.derive"), ()
DRAFT_STEP = ("step.derive_draft",), ()
HEAD_STEP = ("step.derive_logits",), ("step.advance", "step.send")
"""The launches before a program's own, and those behind them, where the device keeps the state."""


def step_launches(segment: Segment) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What those launches are called in a segment's programs."""
    if segment in HEADS:
        return HEAD_STEP
    return DRAFT_STEP if segment == "draft" else BODY_STEP


BOXES = (SENT_BOX, RESULT_BOX)

PLACES = 4

HEADER = (
    "num_seqs", "num_rows", "num_logits", "num_drafting", "drafts", "is_decode", "num_tokens",
    "next_stage", "stage", "cursor", "first",
)  # fmt: skip
"""Numbers at the plan's start.

What the plan says: sequences, rows, logit rows, sequences that pick, drafts to make, whether rows
take the tokens that follow, tokens that the host brings. Where the step is: the stage (0 for the
body, then a draft each) of the head that runs next and of the one that runs, and of its logit rows
the first of the next replay and of this one.
"""

HEADER_SIZE = 16

BY_SEQ = ("seqs", "q_starts", "logit_starts", "picks", "behind")
"""Arrays of the plan with a number a sequence of the step, and one more: its row of the state;
where its rows begin, and its logit rows; how many of the last of these pick; the token behind its
rows where none picks."""

BY_LOGIT = ("logit_rows", "logit_owners", "targets", "mask_rows")
"""Those with a number a logit row: its row, its sequence's number in the step, its target (-1:
none), its row of the masks (-1: none)."""

SENT = (*BY_SEQ, *BY_LOGIT, "tokens")
"""All arrays of the plan that the host sends, the last one a token a row of an extend step. In a
place of the box they lie behind the header without a gap."""

OWN = ("starts", "drafting", "last_rows", "draft_tokens", "picked", "turn")
"""Arrays that the step writes.

A sequence each: where its rows began. A sequence that picks each: its row of the state, and its
last row that holds. A row each: the token behind it, as the MTP layer sees it. A logit row each:
the id that was picked. Then how many steps have begun, which says whose place in the boxes it is.
"""

RESULT_WIDTHS = {
    "ids": 1, "logprobs": 1, "target_logprobs": 1, "top_ids": MAX_RANKED,
    "top_logprobs": MAX_RANKED,
}  # fmt: skip
"""Numbers that a logit row has of each result; `drafts` lie behind them, row by row of those that
pick."""

_ALIGN = 16  # numbers, so that every array begins a cache line

_ORDER = [
    STEP_STATE, HEADER, HEADER_SIZE, BY_SEQ, BY_LOGIT, SENT, OWN, RESULT_WIDTHS, PLACES, _ALIGN
]  # fmt: skip
LAYOUT = hashlib.sha256(msgspec.json.encode(_ORDER)).hexdigest()[:16]
"""Stands for all of the above: kernels of another one would read and write the wrong numbers."""


@dataclass(frozen=True)
class StepLayout:
    """Offsets for steps of at most `max_reqs` sequences, of `max_pages` pages and `max_drafts`
    drafts, and `max_rows` rows, over `vocab_size` ids."""

    max_reqs: int
    max_pages: int
    max_drafts: int
    max_rows: int
    vocab_size: int

    @staticmethod
    def of(limits: Limits) -> StepLayout:
        """For an artifact's largest steps."""
        return StepLayout(
            max_reqs=limits.max_reqs,
            max_pages=-(-limits.max_context // limits.page_tokens),
            max_drafts=limits.max_drafts,
            max_rows=max(limits.max_tokens, limits.max_reqs * (limits.max_drafts + 1)),
            vocab_size=limits.vocab_size,
        )

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Numbers of each of the plan's arrays."""
        by_seq = (*BY_SEQ, "starts", "drafting", "last_rows")
        wide = dict.fromkeys(by_seq, self.max_reqs + 1) | {"turn": 1}
        return {name: wide.get(name, self.max_rows) for name in (*SENT, *OWN)}

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where each of the plan's arrays begins, in numbers from the plan's start."""
        found: dict[str, int] = {}
        end = HEADER_SIZE
        for name, size in self.sizes.items():
            found[name] = end
            end += -(-size // _ALIGN) * _ALIGN
        return found

    @property
    def place_size(self) -> int:
        """Numbers of a place for a plan."""
        by_seq, by_logit = len(BY_SEQ) * (self.max_reqs + 1), len(BY_LOGIT) * self.max_rows
        return -(-(HEADER_SIZE + by_seq + by_logit + self.max_rows) // _ALIGN) * _ALIGN

    @cached_property
    def results(self) -> dict[str, int]:
        """Where each result begins in a place, in numbers, and where the place ends."""
        found: dict[str, int] = {}
        end = 0
        for name, width in RESULT_WIDTHS.items():
            found[name] = end
            end += width * self.max_rows
        found["drafts"] = end
        found["end"] = end + self.max_reqs * max(self.max_drafts, 1)
        return found

    def rows_of(self, place: Any, name: str, count: int) -> Any:
        """The first `count` logit rows of a result: i32 [count] or [count, width], of an i32 array
        that is a place."""
        width, start = RESULT_WIDTHS[name], self.results[name]
        flat = place[start : start + width * count]
        return flat.reshape(count, width) if width > 1 else flat

    def drafts_of(self, place: Any, count: int) -> Any:
        """The drafts of `count` sequences that pick: i32 [count, most drafts]."""
        start = self.results["drafts"]
        return place[start : start + self.max_drafts * count].reshape(count, self.max_drafts)

    @property
    def sent_box(self) -> View:
        """The places of plans: i32 [PLACES, numbers]."""
        return _box(SENT_BOX, self.place_size)

    @property
    def result_box(self) -> View:
        """The places of results: i32 [PLACES, numbers], some of them f32."""
        return _box(RESULT_BOX, self.results["end"])

    @cached_property
    def plan_bytes(self) -> int:
        """Bytes of the whole plan."""
        last = OWN[-1]
        return 4 * (self.offsets[last] + -(-self.sizes[last] // _ALIGN) * _ALIGN)

    @cached_property
    def _fields(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Offset in bytes and shape of each field of the state."""
        found: dict[str, tuple[int, tuple[int, ...]]] = {}
        end = 0
        dims = {"P": self.max_pages, "D": self.max_drafts + 1}
        for name, field in STEP_STATE.items():
            shape = (self.max_reqs + 1, *(dims[dim] for dim in field.dims))
            found[name] = end, shape
            end += -(-4 * prod(shape) // (4 * _ALIGN)) * 4 * _ALIGN
        return found

    @cached_property
    def sequences_bytes(self) -> int:
        """Bytes of the whole state."""
        offset, shape = self._fields[next(reversed(STEP_STATE))]
        return offset + -(-4 * prod(shape) // (4 * _ALIGN)) * 4 * _ALIGN

    def field(self, name: str) -> View:
        """A field of the state: [max_reqs + 1], or [max_reqs + 1, pages or tokens]."""
        offset, shape = self._fields[name]
        strides = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
        return View(
            space="state", name=SEQUENCES, dtype=STEP_STATE[name].dtype, shape=shape,
            strides=strides, offset=offset,
        )  # fmt: skip

    def array(self, name: str) -> View:
        """An array of the plan, i32."""
        return View(
            space="state", name=PLAN, dtype="i32", shape=(self.sizes[name],), strides=(1,),
            offset=4 * self.offsets[name],
        )  # fmt: skip

    @property
    def counts(self) -> View:
        """The state `COUNTS`: i32 [max_reqs + 1, ids]."""
        shape = self.max_reqs + 1, self.vocab_size
        return View(
            space="state", name=COUNTS, dtype="i32", shape=shape, strides=(shape[1], 1)
        )  # fmt: skip

    @property
    def header(self) -> View:
        """The plan's header, i32."""
        return View(
            space="state", name=PLAN, dtype="i32", shape=(len(HEADER),), strides=(1,), offset=0
        )


def _box(name: str, size: int) -> View:
    return View(space="state", name=name, dtype="i32", shape=(PLACES, size), strides=(size, 1))
