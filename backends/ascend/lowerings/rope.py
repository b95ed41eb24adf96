"""Lowering of core.rope: a table made once a step, and CANN's rotation."""

from __future__ import annotations

from lostwax.backends.ascend.contract.rule import Call, Described
from lostwax.backends.ascend.lowerings.keeps import KERNELS, keeps
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import f32_bytes, launch, torch_calls
from lostwax.backends.portable.lowerings.prepared import rope_consts
from lostwax.backends.predicates import Predicate, not_captured
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.step import StepOp
from lostwax.ir.dialects.core import RopeOp
from lostwax.ir.region import Region


def _call(match: Match) -> Call:
    rows, *inner, _ = match.shape("x")
    dim = int(match.attr("op", "dim"))
    heads = inner[0] if inner else 1
    angles = Described("f32", (rows, 1, dim))
    mode = "interleave" if match.attr("op", "interleaved") else "half"
    tensors = {"input": Described("f32", (rows, heads, dim)), "r1": angles, "r2": angles}
    return Call(tensors, {"rotary_mode": mode})


def _of_step_rows(match: Match) -> str | None:
    rows = match.shape("x")[0]
    return None if rows == match.bucket.tokens else f"x has {rows} rows, the step's table has more"


def _within_one(match: Match) -> str | None:
    magnitude = float(match.attr("op", "magnitude"))
    return None if magnitude <= 1 else f"its cosines reach {magnitude}, the operator wants <= 1"


def _table(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
    consts = rope_consts(match)
    op = StepOp(
        function=f"{KERNELS}rope:table",
        inputs=("positions",),
        outputs=(("angles", "f32", (2, match.bucket.tokens, int(consts["dim"]))),),
        consts=consts,
        placement="host",
        allocates=64 * match.bucket.tokens * int(consts["dim"]),
    )
    return (op,)


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    consts = {name: match.attr("op", name) for name in ("offset", "interleaved")}
    views = (match.view("x"), match.step("angles"), match.view("op.out"))
    return launch("ascend_rope", f"{KERNELS}rope:rotate", views, consts)


ROPE = (
    Lowering(
        name="ascend_rope",
        pattern=Region.single(RopeOp),
        emit=_emit,
        when=not_captured()
        & Predicate(_of_step_rows)
        & Predicate(_within_one)
        & keeps("npu_rotary_mul", _call),
        row_invariant=True,
        prepare=_table,
        work=torch_calls(4),
        allocates=lambda match, knobs: 3 * f32_bytes(*match.shape("x")),
    ),
)
