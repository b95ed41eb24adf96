"""What is added to a request's logits before an id is picked. Knows no request and no device."""

from __future__ import annotations

from lostwax.ir.contract.artifact import Limits

BIASES = "biases"
"""The state of a number an id, f32, which heads that sample add to the logits of a row where the
input `bias_rows` names one: `biases_shape` numbers. A running request that asks for it has two rows
by its row of the sequences' state, which `Enter` writes: its bias, and the same with -inf for the
ids that may not be picked yet. Rows of others are undefined."""

NO_BIAS = -1
"""Where a row would be named, and none is."""


def bias_row(seq: int, *, is_early: bool = False) -> int:
    """The row of a sequence: where outputs are still to come before it may end, the second."""
    return 2 * seq + is_early


def biases_shape(limits: Limits) -> tuple[int, int]:
    """Rows of the state, and ids of each; those of sequence 0 are nobody's."""
    return 2 * (limits.max_reqs + 1), limits.vocab_size


def biases_bytes(limits: Limits) -> int:
    """Bytes of the whole state."""
    rows, ids = biases_shape(limits)
    return 4 * rows * ids
