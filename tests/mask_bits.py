"""Masks of a few ids, as steps take them. Knows no step."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lostwax.backends.runtime.mask_gate import Masks
from lostwax.ir.contract.masks import mask_words


def mask_of(allowed: Iterable[int], vocab_size: int) -> Masks:
    """One mask, i32 [words]."""
    words = np.zeros(mask_words(vocab_size), np.uint32)
    for i in allowed:
        words[i // 32] |= np.uint32(1 << (i % 32))
    return words.view(np.int32)


def is_allowed(mask: Masks, token: int) -> bool:
    """Whether the mask's bit of an id is 1."""
    return bool(int(mask[token // 32]) >> (token % 32) & 1)
