"""Records what a compile chose and why, for `explain`. Chooses nothing."""

from __future__ import annotations

from collections.abc import Mapping

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Cover, Priced
from lostwax.backends.plan.price import estimate_us
from lostwax.backends.plan.program_context import BlockFunction
from lostwax.backends.plan.storage import Storage
from lostwax.ir.contract.choice import Loser, RegionChoice
from lostwax.ir.region import RegionMatch


def site_of(block: BlockFunction, region: RegionMatch) -> tuple[int, ...]:
    """Where the region's ops stand in the block function: the same region may stand twice."""
    ops = enumerate(block.function.body.block.ops)
    return tuple(i for i, op in ops if op in region.members)


def _losers(
    chosen: Cover, winner: Priced, storage: Storage, portable: frozenset[str]
) -> tuple[Loser, ...]:
    members = winner.candidate.region.members
    found: list[Loser] = []
    for p in chosen.candidates.priced:
        other = p.candidate
        if other.lowering is None or p is winner or not other.region.members & members:
            continue
        reason = storage.refusal(other)
        if reason is None and p in chosen.chosen:
            continue
        if reason is None:
            same = other.region.members == members
            reason = "costs more" if same else "its cover of these and other ops costs more"
        name, us = p.candidate.name, p.price.micros
        found.append(Loser(lowering=name, reason=reason, us=us, portable=name in portable))
    for refusal in chosen.candidates.refusals:
        if refusal.region.members & members:
            name, reason = refusal.lowering, refusal.reason
            found.append(Loser(lowering=name, reason=reason, portable=name in portable))
    return tuple(found)


def _estimate(priced: Priced) -> float:
    """What the roofline says, also where a record decided."""
    own_us = estimate_us(priced.candidate, priced.price.knobs)
    return round(own_us + priced.price.prepared / 1e6, 6)


def region_choices(
    chosen: Cover, storage: Storage, probes: Mapping[Candidate, str], portable: frozenset[str]
) -> tuple[RegionChoice, ...]:
    """The choices of one block function in one program, views left out.

    `portable` names the lowerings that any target has.
    """
    return tuple(
        RegionChoice(
            block=chosen.candidates.block.name,
            ops=tuple(op.name for op in p.candidate.region.ops.values()),
            site=site_of(p.candidate.block, p.candidate.region),
            region=p.candidate.region.digest(),
            lowering=p.candidate.name,
            us=p.price.micros,
            source=p.price.source,
            knobs=dict(p.price.knobs),
            estimate_us=_estimate(p),
            prepared_us=p.price.prepared / 1e6,
            probe=probes.get(p.candidate, ""),
            losers=_losers(chosen, p, storage, portable),
            portable=p.candidate.name in portable,
        )
        for p in chosen.chosen
        if p.candidate.lowering is not None
    )
