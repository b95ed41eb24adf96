"""Masks of ids, which a step's rows may wait for: a bit an id. Knows no grammar and no device."""

from __future__ import annotations

from lostwax.ir.contract.artifact import Limits

MASKS = "masks"
"""The state that lies between a step's masks and its head: `masks_shape` numbers, i32. A row of it
is one mask: bit i % 32, the least significant first, of word i // 32 is 1 where id i is allowed.
Heads that sample read it where the input `mask_rows` says so; what no row names is undefined."""

WORD_BITS = 32


def mask_words(vocab_size: int) -> int:
    """Words of one mask."""
    return -(-vocab_size // WORD_BITS)


def num_masks(max_reqs: int, max_drafts: int) -> int:
    """The most masks of one step: every row of a decode step may pick with one."""
    return max_reqs * (max_drafts + 1)


def masks_shape(limits: Limits) -> tuple[int, int]:
    """Masks, and words of each, that the state holds."""
    return num_masks(limits.max_reqs, limits.max_drafts), mask_words(limits.vocab_size)


def masks_bytes(limits: Limits) -> int:
    """Bytes of the whole state."""
    masks, words = masks_shape(limits)
    return 4 * masks * words
