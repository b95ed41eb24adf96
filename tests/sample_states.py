"""States that a row of logits names: what is added to them, and which ids they are kept to."""

from __future__ import annotations

import numpy as np


def biases_of(rng: np.random.Generator, vocab: int) -> np.ndarray:
    """Numbers of any size; one for the last id alone; -inf for some."""
    out = 3 * rng.standard_normal((3, vocab))
    out[1] = 0
    out[1, -1] = 100
    out[2, rng.random(vocab) < 0.3] = -np.inf
    return out.astype(np.float32)


def masks_of(rng: np.random.Generator, vocab: int) -> np.ndarray:
    """Every bit drawn; all ids but few; the last id alone; none, but for a bit behind the ids."""
    out = rng.integers(-(2**31), 2**31, (4, -(-vocab // 32)))
    out[1] |= out[0] | np.roll(out[0], 1)
    out[2:] = 0
    place, bit = divmod(vocab - 1, 32)
    out[2, place] = 1 << bit
    if vocab % 32:
        out[3, -1] = -(2**31)
    return out.astype(np.int64).astype(np.int32)
