"""Makes a body's inputs from its rows and the sequences' state. Knows no bucket and no padding.

The time follows the rows and what changes, never the context: page lists stay where they are, and
a program's buffers take over those rows alone that they do not hold yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lostwax.backends.runtime.state_table import NUMPY_DTYPES, StateTable
from lostwax.ir.contract.biases import NO_BIAS
from lostwax.ir.contract.counts import NOT_COUNTED
from lostwax.ir.contract.step import MAX_DRAFTS, STEP_INPUTS, TRASH_PAGE
from lostwax.ir.contract.step_state import NO_TOKEN


@dataclass(frozen=True, slots=True)
class StepInputs:
    """A body's rows and those of its head: 1-D arrays by name, as STEP_INPUTS says, but for the
    page table, which has a row of `state.pages` for each of `seqs`."""

    values: dict[str, Any]  # arrays of two dtypes
    seqs: Any
    state: StateTable


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a body, flat over `seqs`: i32 arrays.

    Those of sequence i are q_starts[i] .. q_starts[i + 1] - 1, at positions starts[i] and on; one
    without a token has NO_TOKEN. A draft body's continue `hidden_rows` of the hidden state.
    """

    seqs: Any
    starts: Any
    q_starts: Any
    tokens: Any
    hidden_rows: Any

    @property
    def owners(self) -> Any:
        """Which of `seqs` each row is of."""
        count = len(self.seqs)
        if len(self.tokens) == count:
            return np.arange(count, dtype=np.int32)
        return np.arange(count, dtype=np.int32).repeat(np.diff(self.q_starts))


def derive(rows: Rows, state: StateTable, page_tokens: int) -> dict[str, Any]:
    """The body's inputs. A row without a token, or at or behind its sequence's limit, gets what
    padding has."""
    tokens, seqs, positions = rows.tokens, rows.seqs, rows.starts
    counts: Any = 1
    if len(tokens) != len(seqs):
        counts = np.diff(rows.q_starts)
        owners = rows.owners
        seqs = seqs[owners]
        positions = np.arange(len(seqs), dtype=np.int32) + (positions - rows.q_starts[:-1])[owners]
    is_real = (tokens != NO_TOKEN) & (positions < state.fields["limit"][seqs])
    if is_real.all():
        kv_lens = rows.starts + counts
        page, offset = np.divmod(positions, page_tokens)
        slots = state.pages[seqs, page] * page_tokens + offset
    else:
        kv_lens = rows.starts + np.add.reduceat(is_real, rows.q_starts[:-1], dtype=np.int32)
        page, offset = np.divmod(np.where(is_real, positions, 0), page_tokens)
        slots = np.where(is_real, state.pages[seqs, page], TRASH_PAGE) * page_tokens
        slots += np.where(is_real, offset, 0)
        tokens = np.where(is_real, tokens, NO_TOKEN)
        positions = np.where(is_real, positions, -1)
    return {
        "tokens": tokens,
        "positions": positions,
        "slots": slots,
        "q_starts": rows.q_starts,
        "kv_lens": kv_lens,
        "hidden_rows": rows.hidden_rows,
    }


NARROWED = (
    "top_k", "top_p", "min_p", "count_rows", "recent", "repetition", "frequency", "presence",
    "bias_rows",
)  # fmt: skip
"""Inputs of a head that say what narrows a row's outputs; padding where nothing does."""


def derive_logits(
    logit_rows: Any, seqs: Any, about: Any, state: StateTable, *, follows: bool
) -> dict[str, Any]:
    """The head's inputs for rows of sequences `seqs` whose logits are those of the token at
    position `about`: i32 arrays [R]. `follows`: what stands before them are tokens that follow."""
    fields = state.fields
    # Counting outputs makes a token's noise independent of chunks, drafts and neighbours.
    counters = np.maximum(about - fields["num_prompt"][seqs], 0)
    found = {
        "logit_rows": logit_rows,
        "temperature": fields["temperature"][seqs],
        "seeds": fields["seed"][seqs],
        "counters": counters,
        "mask_rows": np.full(len(seqs), -1, np.int32),
        "targets": np.full(len(seqs), -1, np.int32),
    }
    if state.is_narrowed[seqs].any():
        return found | _narrowed(seqs, about, counters, state, follows=follows)
    return found | _whole(len(seqs))


@lru_cache(maxsize=64)  # by numbers of rows; a step of few rows would take longer to make it
def _whole(count: int) -> dict[str, Any]:
    """What of `count` rows says that nothing narrows them: padding, which is not to be written."""
    made: dict[str, Any] = {}
    for name in NARROWED:
        spec = STEP_INPUTS[name]
        shape = (count, *(d for d in spec.dims if isinstance(d, int)))
        made[name] = np.full(shape, spec.padding, NUMPY_DTYPES[spec.dtype])
        made[name].flags.writeable = False
    return made


def _narrowed(
    seqs: Any, about: Any, counters: Any, state: StateTable, *, follows: bool
) -> dict[str, Any]:
    """What narrows each row's outputs."""
    fields = state.fields
    is_counted = fields["counted"][seqs] > 0
    recent = np.full((len(seqs), MAX_DRAFTS), NO_TOKEN, np.int32)
    if follows and is_counted.any():
        # the first token that follows is an output, which is counted
        drafts = fields["tokens"][seqs, 1:]
        ends = np.where(is_counted, about - fields["length"][seqs] - 1, 0)
        recent[:, : drafts.shape[1]] = drafts
        number: NDArray[np.int64] = np.arange(MAX_DRAFTS, dtype=np.int64)[None, :]
        recent[np.greater_equal(number, ends[:, None])] = NO_TOKEN
    is_early = counters < fields["min_outputs"][seqs]
    return {
        "top_k": fields["top_k"][seqs],
        "top_p": fields["top_p"][seqs],
        "min_p": fields["min_p"][seqs],
        "count_rows": np.where(is_counted, seqs, NOT_COUNTED),
        "recent": recent,
        "repetition": fields["repetition"][seqs],
        "frequency": fields["frequency"][seqs],
        "presence": fields["presence"][seqs],
        "bias_rows": np.where(fields["biased"][seqs] > 0, 2 * seqs + is_early, NO_BIAS),
    }
