"""Causal attention in the expanded form on Hopper's matrix units, for steps of many new tokens.

One launch a group of heads attends to the requests' whole contexts as plain causal MHA. That is a
third of the absorbed form's operations where a request brings a hundred tokens and more, and the
contexts are not many times the step's tokens: a guard on total_kv bounds them
(`backends/plan/sizes.py`), and with them the workspace. Knows no device.
"""

from __future__ import annotations

from lostwax.backends.cuda.lowerings.expanded_mha import (
    KNOBS,
    WHEN,
    Attention,
    MhaForm,
    carve,
    launches,
    prepare,
)
from lostwax.backends.gpu_kernels.lowerings.attend import ATTEND_ALL_REGION
from lostwax.backends.gpu_kernels.lowerings.expanded import (
    context_rows,
    expanded_work,
    longest_context,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.ir.contract.program import Launch

NAME = "sm90_causal_mha"

_CONTEXTS_A_ROW = 4
"""Of 128 heads, 2,048 context rows take 0.11 ms to expand; all of it takes 0.42 ms for one prompt
of 2,048 rows and 0.26 ms for four of 512, the absorbed form 1.94 and 1.12 ms
(`benchmarks/dense_mha.py`, one H200, 2026-11-29). Twice as many rows would pay for long contexts;
that was not timed."""


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carve(match, knobs, carver)
    return carver.num_bytes


def _work(match: Match, knobs: Knobs) -> Work:
    """All context rows, and each new row against the longest context."""
    return expanded_work(match, knobs, context_rows(match), longest_context(match))


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    form = MhaForm(knobs["keys"], bool(knobs["take_turns"]))
    attention = Attention(NAME, form, match.view("positions"))
    return launches(match, knobs, attention, carve(match, knobs, Carver(match.workspace)))


CAUSAL_MHA = Lowering(
    name=NAME,
    pattern=ATTEND_ALL_REGION,
    emit=_emit,
    when=WHEN,
    knobs=(Knob("keys", (128, 96, 64)), *KNOBS),
    prepare=prepare,
    workspace=_workspace,
    work=_work,
    contexts_a_row=_CONTEXTS_A_ROW,
)
