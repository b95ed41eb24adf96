"""Lowerings of the elementwise core ops, one torch kernel each."""

from __future__ import annotations

from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import emit_call, f32_bytes, launch, torch_calls
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.core import (
    AddOp,
    CastOp,
    ConcatOp,
    EmbedOp,
    GatherRowsOp,
    SiluMulOp,
    ZerosLikeOp,
)
from lostwax.ir.region import Region


def _two_wide(match: Match, knobs: Knobs) -> int:
    return 2 * f32_bytes(*match.shape("op.out"))


def _indices(match: Match, knobs: Knobs) -> int:
    """Row numbers as torch wants them, and which of them are padding."""
    return 32 * match.shape("op.out")[0]


def _add_work(match: Match, knobs: Knobs) -> Work:
    """One kernel, or what is wider is made of `a` first."""
    kinds = {match.dtype(value) for value in ("a", "b", "op.out")}
    return torch_calls(1 if len(kinds) == 1 else 2)(match, knobs)


def _emit_concat(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("op.out"), *match.views("parts"))
    return launch("portable_concat", "rows:concat", views)


ELEMENTWISE = (
    Lowering(
        name="portable_add",
        pattern=Region.single(AddOp),
        emit=emit_call("portable_add", "elementwise:add", "a b op.out"),
        row_invariant=True,
        work=_add_work,
        allocates=_two_wide,
    ),
    Lowering(
        name="portable_cast",
        pattern=Region.single(CastOp),
        emit=emit_call("portable_cast", "elementwise:cast", "x op.out"),
        row_invariant=True,
    ),
    Lowering(
        name="portable_zeros_like",
        pattern=Region.single(ZerosLikeOp),
        emit=emit_call("portable_zeros_like", "elementwise:zeros_like", "x op.out"),
        row_invariant=True,
    ),
    Lowering(
        name="portable_silu_mul",
        pattern=Region.single(SiluMulOp),
        emit=emit_call("portable_silu_mul", "elementwise:silu_mul", "gate up op.out"),
        row_invariant=True,
        work=torch_calls(5),
        allocates=lambda match, knobs: 3 * f32_bytes(*match.shape("op.out")),
    ),
    Lowering(
        name="portable_concat",
        pattern=Region.single(ConcatOp),
        emit=_emit_concat,
        row_invariant=True,
    ),
    Lowering(
        name="portable_embed",
        pattern=Region.single(EmbedOp),
        emit=emit_call("portable_embed", "rows:take_rows", "table tokens op.out"),
        row_invariant=True,
        work=torch_calls(4),
        allocates=_indices,
    ),
    Lowering(
        name="portable_gather_rows",
        pattern=Region.single(GatherRowsOp),
        emit=emit_call("portable_gather_rows", "rows:take_rows", "x rows op.out"),
        row_invariant=True,
        work=torch_calls(4),
        allocates=_indices,
    ),
)
