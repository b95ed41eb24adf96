"""Lowering of kv.append."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import launch
from lostwax.backends.portable.lowerings.prepared import wide_slots
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.region import Region


def _emit_append(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("cache_in"), match.step("wide_slots"), *match.views("rows"))
    return launch("portable_append", "cache:append", views)


def _append_work(match: Match, knobs: Knobs) -> Work:
    work = match.work()
    return Work(work.num_bytes, 0, 2 * len(match.parts("cache_in")))


CACHE = (
    Lowering(
        name="portable_append",
        pattern=Region.single(AppendOp),
        emit=_emit_append,
        when=P.layout("cache_in", "f32", "bf16"),
        row_invariant=True,
        prepare=wide_slots,
        work=_append_work,
        allocates=lambda match, knobs: 4 * match.bucket.tokens * sum(match.parts("cache_in")),
    ),
)
