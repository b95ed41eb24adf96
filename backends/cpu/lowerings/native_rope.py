"""Rotations of heads, and the table of a step's angles that they read. Native kernels."""

from __future__ import annotations

import struct

from lostwax.backends import predicates as P
from lostwax.backends.cpu.contract.sizes import MOST_PAIRS
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    alike,
    in_a_list,
    native,
    num_rows,
    symbol,
)
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.kernels.rope import correction_range
from lostwax.backends.portable.lowerings.prepared import rope_consts
from lostwax.backends.portable.lowerings.rope import of_step_rows
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Scalar
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.step_kernel import Prepared, StepKernel
from lostwax.ir.dialects.core import RopeOp
from lostwax.ir.region import Region


def _table(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
    """`table`: f32 [2, T, dim], cosines and signed sines."""
    consts = rope_consts(match)
    tokens, dim = match.bucket.tokens, int(consts["dim"])
    theta, factor = float(consts["theta"]), float(consts["factor"])
    original, fast, slow = (float(consts[n]) for n in ("original_len", "beta_fast", "beta_slow"))
    low, high = correction_range(dim, theta, int(original), fast, slow) if factor != 1 else (0, 1)
    whole = (tokens, dim, int(consts["interleaved"]), low, high)
    kernel = StepKernel(
        source=KernelSource(language="cpp", path="native.cpp", symbol="rope_table"),
        arguments=(
            *("positions", "table", "num_rows"),
            *(Scalar("i32", number) for number in whole),
            *(Scalar("f32", x) for x in (theta, factor, float(consts["magnitude"]))),
        ),
        outputs=(("table", "f32", (2, tokens, dim)),),
        grid=(1, 1, 1),
    )
    return (kernel,)


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    x, out = match.view("x"), match.view("op.out")
    rows, *heads, width = match.shape("x")
    x_head, out_head = (x.strides[1], out.strides[1]) if heads else (0, 0)
    return (
        native(
            match, "cpu_native_rope", symbol("rotate", match, "x"), x, match.step("table"), out,
            num_rows(match), rows, *(heads or [1]), width, int(match.attr("op", "offset")),
            int(match.attr("op", "dim")), int(match.attr("op", "interleaved")),
            x.strides[0], x_head, out.strides[0], out_head,
        ),
    )  # fmt: skip


def _told_exactly(match: Match) -> str | None:
    """Kernels take f32, of which a rounded theta or factor would turn far positions too far."""
    for name, least in (("theta", 1.0), ("factor", 0.0)):
        value = float(match.attr("op", name))
        if value < least or struct.unpack("<f", struct.pack("<f", value))[0] != value:
            return f"{name} is {value}, wants an f32 of {least} or more"
    return None


def _few_pairs(match: Match) -> str | None:
    dim = int(match.attr("op", "dim"))
    return None if dim <= 2 * MOST_PAIRS else f"dim is {dim}, wants <= {2 * MOST_PAIRS}"


NATIVE_ROPE = (
    Lowering(
        name="cpu_native_rope",
        pattern=Region.single(RopeOp),
        emit=_emit,
        when=ON_HOST
        & alike("x op.out")
        & P.of_rows("x")
        & Predicate(of_step_rows)
        & Predicate(_told_exactly)
        & Predicate(_few_pairs),
        prepare=_table,
        row_invariant=True,
        work=lambda match, knobs: in_a_list(match.work()),
    ),
)
