"""Lowerings of core.rope: a table made once a step, or made in the call."""

from __future__ import annotations

from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import f32_bytes, launch, torch_calls
from lostwax.backends.portable.lowerings.prepared import rope_consts, rope_table
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.core import RopeOp
from lostwax.ir.region import Region


def of_step_rows(match: Match) -> str | None:
    """Why a table made once a step does not serve this rope, None where it does."""
    rows = match.shape("x")[0]
    return None if rows == match.bucket.tokens else f"x has {rows} rows, the step's table has more"


def _emit_rope(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    consts = {**rope_consts(match), "offset": match.attr("op", "offset")}
    views = (match.view("x"), match.view("positions"), match.view("op.out"))
    return launch("portable_rope", "rope:rope", views, consts)


def _emit_rotate(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    consts = {name: match.attr("op", name) for name in ("offset", "interleaved")}
    views = (match.view("x"), match.step("table"), match.view("op.out"))
    return launch("portable_rope_table", "rope:rotate", views, consts)


def _wide(match: Match, knobs: Knobs) -> int:
    dim = int(match.attr("op", "dim"))  # what is not rotated is copied in place
    *rows, _ = match.shape("x")
    return 4 * f32_bytes(*rows, dim) + 16 * f32_bytes(rows[0], dim)


ROPE = (
    Lowering(
        name="portable_rope",
        pattern=Region.single(RopeOp),
        emit=_emit_rope,
        row_invariant=True,
        work=torch_calls(20),
        allocates=_wide,
    ),
    Lowering(
        name="portable_rope_table",
        pattern=Region.single(RopeOp),
        emit=_emit_rotate,
        when=Predicate(of_step_rows),
        row_invariant=True,
        prepare=rope_table,
        work=torch_calls(5),
        allocates=_wide,
    ),
)
