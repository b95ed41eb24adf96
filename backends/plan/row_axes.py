"""What the first axis of a value counts: rows of a step, of logits, of the state, or pages."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import Attribute

from lostwax.ir.size import Size
from lostwax.ir.types import CacheType, TensorType

ROWS, LOGIT_ROWS, STATES, PAGES = "T", "R", "S", "N"
"""Symbols of first axes."""
REQUESTS = "B"
"""As many as rows where each request has one."""


@dataclass(frozen=True)
class Axes:
    """What first axes of a program are: decode programs write their rows as multiples of B."""

    rows_a_req: int | None
    """Rows of every request of a decode step, None where requests have unequal ones."""

    @property
    def one_row(self) -> bool:
        """Whether rows and requests are the same axis."""
        return self.rows_a_req == 1

    def symbol(self, kind: Attribute) -> str | None:
        """The symbol that the first axis is as long as; that of rows however it is written."""
        size: Size | None = None
        if isinstance(kind, CacheType):
            size = kind.pages.data
        elif isinstance(kind, TensorType) and kind.sizes:
            size = kind.sizes[0]
        if self.rows_a_req and size == Size.of(REQUESTS) * Size.of(self.rows_a_req):
            return ROWS
        return next((s for s in (ROWS, LOGIT_ROWS, STATES, PAGES) if size == Size.of(s)), None)

    def is_counted(self, kind: Attribute) -> bool:
        """Whether the step input `num_rows` counts the real ones of the first axis."""
        return self.symbol(kind) in (ROWS, LOGIT_ROWS)
