"""How often the tokens of a request have come, for penalties. Knows no request and no device."""

from __future__ import annotations

from lostwax.ir.contract.artifact import Limits

COUNTS = "counts"
"""The state of a number an id, i32, by a request's row of the sequences' state: OUTPUT for each
time that the id is among its outputs, as far as they are known, and IN_PROMPT where its prompt has
it. `Enter` writes a row, and each step adds what it picks; rows of requests without penalties are
undefined."""

NOT_COUNTED = -1
"""Where a row would be named, and none is."""

IN_PROMPT = 1
OUTPUT = 2


def counts_shape(limits: Limits) -> tuple[int, int]:
    """Rows of the state, and ids of each; row 0 is nobody's."""
    return limits.max_reqs + 1, limits.vocab_size


def counts_bytes(limits: Limits) -> int:
    """Bytes of the whole state."""
    rows, ids = counts_shape(limits)
    return 4 * rows * ids
