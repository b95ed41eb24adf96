"""Lowering of core.rope: a table made once a step, and CANN's rotation."""

from __future__ import annotations

from lostwax.backends.ascend.contract.rule import Call, Described
from lostwax.backends.ascend.lowerings.keeps import KERNELS, keeps
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import f32_bytes, launch, torch_calls
from lostwax.backends.portable.lowerings.prepared import rope_consts
from lostwax.backends.portable.lowerings.rope import of_step_rows
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.program import Const, Launch
from lostwax.ir.contract.step import StepOp
from lostwax.ir.dialects.core import RopeOp
from lostwax.ir.region import Region

MOST_PAGES = 4096
"""Of which each has 1,024 positions at most: what the tables of angles reach."""


def _call(match: Match) -> Call:
    rows, *inner, _ = match.shape("x")
    dim = int(match.attr("op", "dim"))
    heads = inner[0] if inner else 1
    angles = Described("f32", (rows, 1, dim))
    mode = "interleave" if match.attr("op", "interleaved") else "half"
    tensors = {"input": Described("f32", (rows, heads, dim)), "r1": angles, "r2": angles}
    return Call(tensors, {"rotary_mode": mode})


def within_one(node: str) -> Predicate:
    """The rope's cosines are none above 1, which CANN's operators do not take."""

    def refusal(match: Match) -> str | None:
        magnitude = float(match.attr(node, "magnitude"))
        wanted = f"its cosines reach {magnitude}, the operator wants <= 1"
        return None if magnitude <= 1 else wanted

    return Predicate(refusal)


def _within_tables(match: Match) -> str | None:
    pages = match.bucket.pages
    return None if pages <= MOST_PAGES else f"{pages} pages, the angles' tables have {MOST_PAGES}"


WITHIN_TABLES = Predicate(_within_tables)


def angles_of(match: Match, node: str, name: str, dtype: str, **forced: Const) -> StepOp:
    """`name`: cosines and sines [2, T, dim] of a rope, with constants of its own where `forced`."""
    consts = rope_consts(match, node) | forced
    rows, dim = match.bucket.tokens, int(consts["dim"])
    return StepOp(
        function=f"{KERNELS}rope:table",
        inputs=("positions",),
        outputs=((name, dtype, (2, rows, dim)),),
        consts=consts,
        allocates=f32_bytes(rows, 8 * dim + 8),
    )


def _prepare(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
    return (angles_of(match, "op", "angles", "f32"),)


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    consts = {name: match.attr("op", name) for name in ("offset", "interleaved")}
    views = (match.view("x"), match.step("angles"), match.view("op.out"))
    return launch("ascend_rope", f"{KERNELS}rope:rotate", views, consts)


def _rotated_bytes(match: Match, knobs: Knobs) -> int:
    """What is rotated of each row, in f32, and what torch makes of it in CANN's place."""
    return 6 * f32_bytes(*match.shape("x")[:-1], int(match.attr("op", "dim")))


ROPE = (
    Lowering(
        name="ascend_rope",
        pattern=Region.single(RopeOp),
        emit=_emit,
        when=Predicate(of_step_rows)
        & within_one("op")
        & WITHIN_TABLES
        & keeps("npu_rotary_mul", _call),
        row_invariant=True,
        prepare=_prepare,
        work=torch_calls(4),
        allocates=_rotated_bytes,
    ),
)
