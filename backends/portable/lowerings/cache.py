"""Lowerings of kv.append: rows rounded to one element type, or bytes of a scaled layout."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import launch, torch_calls
from lostwax.backends.portable.lowerings.prepared import wide_slots
from lostwax.ir.contract.cache_layout import in_either_encoding
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.region import Region


def _emit_append(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("cache_in"), match.step("wide_slots"), *match.views("rows"))
    return launch("portable_append", "cache:append", views)


def _emit_append_scaled(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (
        match.view("cache_in"),
        match.step("wide_slots"),
        *match.views("rows:scale"),
        *match.views("rows"),
    )
    consts = {"layout": match.layout("cache_in")}
    return launch("portable_append_scaled", "cache:append_scaled", views, consts)


def _append_work(match: Match, knobs: Knobs) -> Work:
    work = match.work()
    return Work(work.num_bytes, 0, 2 * len(match.parts("cache_in")))


CACHE = (
    Lowering(
        name="portable_append",
        pattern=Region.single(AppendOp),
        emit=_emit_append,
        when=P.layout("cache_in", "f32", "bf16", *in_either_encoding("fp8_576")),
        row_invariant=True,
        prepare=wide_slots,
        work=_append_work,
        allocates=lambda match, knobs: 4 * match.bucket.tokens * sum(match.parts("cache_in")),
    ),
    Lowering(
        name="portable_append_scaled",
        pattern=Region.single(AppendOp),
        emit=_emit_append_scaled,
        when=P.layout("cache_in", *in_either_encoding("fp8_656", "index_paged", "index_row")),
        row_invariant=True,
        prepare=wide_slots,
        work=torch_calls(5),
        allocates=lambda match, knobs: 8 * match.bucket.tokens * sum(match.parts("cache_in")),
    ),
)
