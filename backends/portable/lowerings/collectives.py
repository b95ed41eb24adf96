"""Lowerings of what ranks exchange, one collective of torch.distributed each."""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import launch, torch_calls, value_bytes
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.dist import AllGatherOp, AllReduceOp
from lostwax.ir.region import Region


def _reduce_workspace(match: Match, knobs: Knobs) -> int:
    return 0 if match.dtype("x") == match.dtype("op.out") else value_bytes(match, "x")


def _emit_reduce(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("x"), match.view("op.out"), match.workspace)
    return launch("portable_all_reduce", "collectives:all_reduce", views)


def _ordered_workspace(match: Match, knobs: Knobs) -> int:
    ranks = match.attr("op", "ranks")
    assert isinstance(ranks, int)
    return ranks * value_bytes(match, "x")


def _ordered_work(match: Match, knobs: Knobs) -> Work:
    """Every rank receives all others' summands, where a ring halves them first."""
    plain, gathered = match.work(), _ordered_workspace(match, knobs)
    return replace(plain, num_bytes=plain.num_bytes + gathered, launches=4)


def _emit_ordered(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("x"), match.view("op.out"), match.workspace)
    return launch("portable_all_reduce_in_order", "collectives:all_reduce_in_order", views)


def _emit_gather(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("x"), match.view("op.out"), match.workspace)
    consts = {"axis": match.attr("op", "axis")}
    return launch("portable_all_gather", "collectives:all_gather", views, consts)


COLLECTIVES = (
    Lowering(
        name="portable_all_reduce",
        pattern=Region.single(AllReduceOp),
        emit=_emit_reduce,
        workspace=_reduce_workspace,
        work=torch_calls(3),
    ),
    Lowering(
        name="portable_all_reduce_in_order",
        pattern=Region.single(AllReduceOp),
        emit=_emit_ordered,
        row_invariant=True,
        workspace=_ordered_workspace,
        work=_ordered_work,
    ),
    Lowering(
        name="portable_all_gather",
        pattern=Region.single(AllGatherOp),
        emit=_emit_gather,
        row_invariant=True,
        workspace=lambda match, knobs: value_bytes(match, "op.out"),
        work=torch_calls(4),
    ),
)
