"""Records what a compile chose and why, for `explain`. Chooses nothing."""

from __future__ import annotations

from lostwax.backends.cover import Cover, Priced
from lostwax.backends.storage import Storage
from lostwax.ir.contract.choice import Loser, RegionChoice


def _losers(chosen: Cover, winner: Priced, storage: Storage) -> tuple[Loser, ...]:
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
        found.append(Loser(lowering=p.candidate.name, reason=reason, us=p.price.micros))
    for refusal in chosen.candidates.refusals:
        if refusal.region.members & members:
            found.append(Loser(lowering=refusal.lowering, reason=refusal.reason))
    return tuple(found)


def region_choices(chosen: Cover, storage: Storage) -> tuple[RegionChoice, ...]:
    """The choices of one block function in one program, views left out."""
    return tuple(
        RegionChoice(
            block=chosen.candidates.block.name,
            ops=tuple(op.name for op in p.candidate.region.ops.values()),
            region=p.candidate.region.digest(),
            lowering=p.candidate.name,
            us=p.price.micros,
            source=p.price.source,
            knobs=dict(p.price.knobs),
            losers=_losers(chosen, p, storage),
        )
        for p in chosen.chosen
        if p.candidate.lowering is not None
    )
