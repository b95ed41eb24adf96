"""What may be done with a step's ticket when rows wait for masks. Knows no step and no device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lostwax.ir.contract.masks import WORD_BITS, mask_words

Masks = NDArray[np.int32]
"""i32 [masked rows, words]: one mask a row, as the state `MASKS` holds them."""


class MaskError(ValueError):
    """Masks are missing, come twice or have another form; the message has the remedy."""


class MaskGate:
    """Lets a step's masks through once, where `count` of its rows wait for one each."""

    def __init__(self, count: int, vocab_size: int) -> None:
        self._count = count
        self._vocab_size = vocab_size
        self.is_open = count == 0
        """Whether nothing is waited for."""

    def take(self, masks: Masks) -> None:
        """Open for these masks. Raises MaskError where they are none of the step's, and then
        waits on."""
        if self._count == 0:
            raise MaskError(
                "no row of this step waits for a mask; list rows in the plan's `masked`, or do not"
                " finish its ticket"
            )
        if self.is_open:
            raise MaskError("the ticket was finished before; finish each ticket once")
        _require_form(masks, self._count, self._vocab_size)
        self.is_open = True

    def require_open(self) -> None:
        """Raises MaskError where masks are still waited for: then no result will come."""
        if not self.is_open:
            raise MaskError(
                f"{self._count} rows of this step wait for masks; call its ticket's finish(masks)"
                " before you ask for the result"
            )


NO_GATE = MaskGate(0, 0)
"""Of all steps in which no row waits: it never changes."""


def _require_form(masks: Any, count: int, vocab_size: int) -> None:
    """Raise MaskError unless these are `count` masks, each of which allows an id."""
    shape = (count, mask_words(vocab_size))
    # Exactly an ndarray: kinds of it, such as one with masked entries, index and reduce otherwise.
    kind: Any = masks.dtype if type(masks) is np.ndarray else type(masks).__name__
    if kind != np.int32:
        raise MaskError(f"masks are {kind}; give a numpy array of int32, a bit an id")
    if masks.shape != shape:
        raise MaskError(
            f"masks have the shape {list(masks.shape)}; give {list(shape)}: a row each masked row,"
            f" a bit each of {vocab_size} ids"
        )
    rest = vocab_size % WORD_BITS  # bits behind the last id are nobody's
    held: Masks = masks
    last = held[:, -1] & np.int32((1 << rest) - 1 if rest else -1)
    any_bits: Masks = np.bitwise_or.reduce(held[:, :-1], axis=1) | last
    if not any_bits.all():
        row = int(np.flatnonzero(any_bits == 0)[0])
        raise MaskError(f"mask {row} allows no id; allow one at least, if only the end's")
