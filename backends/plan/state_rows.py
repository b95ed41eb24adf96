"""How many rows the states have that outlive steps. Knows no graph and no memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lostwax.ir.contract.artifact import Limits
from lostwax.ir.contract.biases import biases_shape
from lostwax.ir.contract.counts import counts_shape
from lostwax.ir.contract.masks import masks_shape
from lostwax.ir.contract.program import Bucket


@dataclass(frozen=True, slots=True)
class StateRows:
    """Rows of the states HIDDEN, MASKS, BIASES and COUNTS, whatever program reads them."""

    hidden: int
    masks: int
    biases: int
    counts: int

    @staticmethod
    def of(limits: Limits, buckets: Iterable[Bucket]) -> StateRows:
        """Those of an artifact, whose largest body leaves most hidden rows."""
        return StateRows(
            hidden=max(bucket.tokens for bucket in buckets),
            masks=masks_shape(limits)[0],
            biases=biases_shape(limits)[0],
            counts=counts_shape(limits)[0],
        )

    @staticmethod
    def least(bucket: Bucket) -> StateRows:
        """Where no artifact says it: those that one program's own rows need."""
        rows = max(bucket.rows, 1)
        return StateRows(hidden=max(bucket.tokens, rows), masks=rows, biases=rows, counts=rows)

    @property
    def env(self) -> dict[str, int]:
        """Their symbols."""
        return {"S": self.hidden, "M": self.masks, "Q": self.biases, "C": self.counts}
