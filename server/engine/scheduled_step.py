"""What runs in one step. Knows chunks of requests, never why they were chosen."""

from __future__ import annotations

from typing import Literal

import msgspec

from lostwax.ir.contract.program import HEADS, Head
from lostwax.ir.contract.step_plan import Move
from lostwax.server.engine.request import Chunk


class ScheduledStep(msgspec.Struct, frozen=True):
    """The chunks of one step, in row order; `drafts` tokens are guessed behind it at most.

    `num_answers`: the first chunks of an extend step in which all answers under way that have pages
    go on, too, a row each.
    """

    entry: Literal["extend", "decode"]
    chunks: tuple[Chunk, ...]
    drafts: int = 0
    moves: tuple[Move, ...] = ()
    """Pages that are copied between device and host before it."""
    num_answers: int = 0

    @property
    def is_mixed(self) -> bool:
        """Whether answers go on beside prompts."""
        return self.num_answers > 0

    @property
    def draft_head(self) -> Head:
        """The least head that drafts well for all."""
        return (
            "sample"
            if any([c.picks and c.req.draft_head == "sample" for c in self.chunks])
            else "pick"
        )

    @property
    def head(self) -> Head:
        """The least head that gives all logit rows what they want."""
        heads: set[Head] = {chunk.head for chunk in self.chunks}
        return heads.pop() if len(heads) == 1 else HEADS[max(map(HEADS.index, heads))]
