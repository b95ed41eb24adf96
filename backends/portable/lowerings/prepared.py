"""Step metadata that portable lowerings share: made once a step, read by every layer."""

from __future__ import annotations

from lostwax.backends.lowering import Knobs, Match
from lostwax.backends.portable.lowerings.calls import KERNELS
from lostwax.ir.contract.program import Const
from lostwax.ir.contract.step import StepOp

ROPE_CONSTS = (
    "dim", "interleaved", "theta", "factor", "original_len", "beta_fast", "beta_slow", "magnitude",
)  # fmt: skip


def row_requests(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
    """`requests`: i64 [T], the request of every row."""
    op = StepOp(
        function=KERNELS + "step:row_requests",
        inputs=("q_starts",),
        outputs=(("requests", "i64", (match.bucket.tokens,)),),
        allocates=12 * match.bucket.tokens,  # row numbers, and what is found before it is clamped
    )
    return (op,)


def wide_slots(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
    """`slots`: i64 [T]."""
    op = StepOp(
        function=KERNELS + "cache:wide_slots",
        inputs=("slots",),
        outputs=(("wide_slots", "i64", (match.bucket.tokens,)),),
    )
    return (op,)


def rope_consts(match: Match, node: str = "op") -> dict[str, Const]:
    """The properties of a rope that decide its table."""
    return {name: match.attr(node, name) for name in ROPE_CONSTS}


def rope_table(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
    """`table`: f32 [2, T, dim], cosines and signed sines."""
    consts = rope_consts(match)
    tokens, dim = match.bucket.tokens, int(consts["dim"])
    op = StepOp(
        function=KERNELS + "rope:rope_table",
        inputs=("positions",),
        outputs=(("table", "f32", (2, tokens, dim)),),
        consts=consts,
        # In f64: angles, cosines, sines, their negatives (half a row each) and a stacked pair.
        allocates=8 * (3 * dim * tokens + tokens + 4 * dim),
    )
    return (op,)
