"""What runs which op of a planned step: own kernels, a library's, or portable ones. Chooses none.

The table that answers how complete a target is: an op on a portable lowering is one that the
target has no kernel for, or none that is cheaper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.cover import Cover, Priced
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.ir.contract.program import SEGMENTS, Segment

Kind = Literal["own", "library", "portable"]
KINDS: tuple[Kind, ...] = ("own", "library", "portable")

NOTHING_TO_WRITE = frozenset({"portable_zeros_like"})
"""A fill of memory, once a step: torch's is as good as a target's own."""


@dataclass(frozen=True, slots=True)
class Covered:
    """The ops of one region, what runs them, and its share of its step's predicted time.

    `refusals` are (lowering, reason) of what is not portable and could not run there.
    """

    ops: tuple[str, ...]
    lowering: str
    kind: Kind
    share: float
    refusals: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class StepCoverage:
    """The largest program of one segment: predicted microseconds over all layers, by region."""

    segment: Segment
    program: str
    us: float
    regions: tuple[Covered, ...]

    def share(self, kind: Kind) -> float:
        """The part of the step that runs on this kind."""
        return sum(r.share for r in self.regions if r.kind == kind)

    @property
    def gaps(self) -> tuple[Covered, ...]:
        """Regions on portable lowerings for want of a kernel."""
        return tuple(
            r for r in self.regions if r.kind == "portable" and r.lowering not in NOTHING_TO_WRITE
        )


def kind_of(lowering: Lowering, portable: Collection[str]) -> Kind:
    """Whose kernels a lowering runs on; `portable` names those that any target has."""
    if lowering.name in portable:
        return "portable"
    return "library" if lowering.library or lowering.requires else "own"


def coverage(
    contexts: Sequence[ProgramContext],
    covers: Sequence[Mapping[str, Cover]],
    portable: Collection[str],
    *,
    each_guard: bool = False,
) -> tuple[StepCoverage, ...]:
    """Of each segment its largest program, under the guard that comes last, or under each guard."""
    found: list[StepCoverage] = []
    for segment in SEGMENTS:
        own = [i for i, context in enumerate(contexts) if context.segment == segment]
        guards = {contexts[i].guard.name if each_guard else "": None for i in own}  # in order
        for guard in guards:
            under = [i for i in own if guard in ("", contexts[i].guard.name)]
            largest = max(under, key=lambda i: (contexts[i].bucket, i))
            found.append(_step(contexts[largest], covers[largest], portable))
    return tuple(found)


def _step(
    context: ProgramContext, covers: Mapping[str, Cover], portable: Collection[str]
) -> StepCoverage:
    calls = Counter(call.callee.root_reference.data for call in context.calls)
    us: dict[tuple[tuple[str, ...], str], float] = {}
    kinds: dict[str, Kind] = {}
    refusals: dict[tuple[tuple[str, ...], str], dict[str, str]] = {}
    for block, cover in covers.items():
        for priced in cover.chosen:
            lowering = priced.candidate.lowering
            if lowering is None:  # a view
                continue
            nodes = priced.candidate.region.region.nodes.values()
            key = tuple(node.op for node in nodes), lowering.name
            us[key] = us.get(key, 0.0) + priced.price.micros * calls[block]
            kinds[lowering.name] = kind_of(lowering, portable)
            refusals.setdefault(key, {}).update(_refusals(cover, priced, portable))
    total = sum(us.values())
    regions = tuple(
        Covered(
            ops, name, kinds[name], part / total if total else 0.0, _sorted(refusals[ops, name])
        )
        for (ops, name), part in sorted(us.items(), key=lambda item: (-item[1], item[0]))
    )
    return StepCoverage(context.segment, context.name, total, regions)


def _refusals(cover: Cover, priced: Priced, portable: Collection[str]) -> Iterator[tuple[str, str]]:
    members = priced.candidate.region.members
    for refusal in cover.candidates.refusals:
        if refusal.lowering not in portable and refusal.region.members & members:
            yield refusal.lowering, refusal.reason


def _sorted(refusals: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(refusals.items()))
