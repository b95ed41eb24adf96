"""Lowerings of what is one operator of torch, which torch_npu gives to CANN."""

from __future__ import annotations

from xdsl.irdl import IRDLOperation

from lostwax.backends.ascend.lowerings.keeps import KERNELS
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import emit_call, f32_bytes, launch, torch_calls
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.core import AddOp, CastOp, ConcatOp, EmbedOp, GatherRowsOp, ZerosLikeOp
from lostwax.ir.region import Region


def _of_torch(op: type[IRDLOperation], name: str, arguments: str, calls: int) -> Lowering:
    return Lowering(
        name=f"ascend_{name}",
        pattern=Region.single(op),
        emit=emit_call(f"ascend_{name}", f"{KERNELS}elementwise:{name}", arguments),
        row_invariant=True,
        work=torch_calls(calls),
        allocates=lambda match, knobs: 2 * f32_bytes(*match.shape("op.out")),
    )


def _emit_concat(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("op.out"), *match.views("parts"))
    return launch("ascend_concat", f"{KERNELS}elementwise:concat", views)


ELEMENTWISE = (
    Lowering(
        name="ascend_concat",
        pattern=Region.single(ConcatOp),
        emit=_emit_concat,
        row_invariant=True,
    ),
    _of_torch(AddOp, "add", "a b op.out", 2),
    _of_torch(CastOp, "cast", "x op.out", 1),
    _of_torch(ZerosLikeOp, "zeros", "x op.out", 1),
    _of_torch(EmbedOp, "embed", "table tokens op.out", 3),
    _of_torch(GatherRowsOp, "take_rows", "x rows op.out", 3),
)
