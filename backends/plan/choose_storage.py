"""Chooses how a block kind's weights are stored, over all programs that run it.

One copy of a weight serves every program. The choice goes by connected group (a concatenation
couples its parts): the form under which the programs' covers lose least, each program measured
against its own best so that long programs do not outvote short ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from lostwax.backends.plan.cover import CandidateSet, Cover, Priced, cover, least_price
from lostwax.backends.plan.form_steps import form_refusal
from lostwax.backends.plan.storage import Storage
from lostwax.backends.plan.want import Want, want_of
from lostwax.backends.plan.weight_type import WeightType, weight_types

UNCOVERED = 1e9
"""Loss of each op that a storage leaves without a lowering: fewer of them is a step forward, so
that a search which changes one group at a time gets out of where many weights lie wrong."""

Options = list[tuple[Want, ...]]


class _Scored:
    """One program's candidates, with covers remembered by which candidates a storage lets pass."""

    def __init__(self, cset: CandidateSet) -> None:
        self._cset = cset
        self.wants = [_wants_of(p) for p in cset.priced]
        self._totals: dict[tuple[bool, ...], float] = {}
        self._best = max(least_price(cset, [True] * len(cset.priced)) or 1, 1)

    def loss(self, storage: Storage) -> float:
        """Price under the storage over the price with every form at once, or UNCOVERED an op."""
        passed = tuple(all(storage.gives(w) for w in wants) for wants in self.wants)
        if passed not in self._totals:
            total = least_price(self._cset, passed)
            if total is None:
                self._totals[passed] = UNCOVERED * max(self._uncovered(passed), 1)
            else:
                self._totals[passed] = total / self._best
        return self._totals[passed]

    def _uncovered(self, passed: tuple[bool, ...]) -> int:
        kept = (p for p, good in zip(self._cset.priced, passed, strict=True) if good)
        covered = {op for p in kept for op in p.candidate.region.members}
        return sum(op not in covered for op in self._cset.ops)


def _wants_of(priced: Priced) -> list[Want]:
    """The forms in which a candidate reads its weights."""
    if priced.candidate.lowering is None:
        return []
    operands = priced.candidate.weight_operands
    return [w for o in operands if (w := want_of(priced.candidate, o)) is not None]


def _groups(wants: set[Want]) -> list[set[str]]:
    """Weights coupled by concatenations, as disjoint sets in a fixed order."""
    groups: list[set[str]] = []
    for want in sorted(wants):
        touching = [g for g in groups if g & set(want.parts)]
        merged = set(want.parts).union(*touching)
        groups = [g for g in groups if g not in touching] + [merged]
    return sorted(groups, key=lambda g: min(g))


def _options(group: set[str], wants: set[Want]) -> Options:
    """Ways to store one group: row-major apart, one weight permuted, or one concatenation."""
    mine = sorted(w for w in wants if set(w.parts) <= group)
    plain = tuple(Want((name,)) for name in sorted(group))
    options: Options = [plain]
    for want in mine:
        if want not in plain:
            rest = tuple(w for w in plain if w.parts[0] not in want.parts)
            options.append((want, *rest))
    return options


def _loss(programs: Sequence[_Scored], storage: Storage) -> float:
    """The programs' mean loss."""
    return sum(p.loss(storage) for p in programs) / len(programs)


def _storage(types: dict[str, WeightType], chosen: Sequence[tuple[Want, ...]]) -> Storage:
    return Storage(types, tuple(w for c in chosen for w in c))


def _moved_together(
    programs: Sequence[_Scored],
    types: dict[str, WeightType],
    wants: set[Want],
    groups: Sequence[set[str]],
    chosen: Options,
) -> Options:
    """Storage that gives some candidate all its forms, where that costs less: one that wants two
    groups otherwise than they lie is reached by no step of one group."""
    joint = {tuple(sorted(each)) for p in programs for each in p.wants if set(each) <= wants}
    for each in sorted(joint):
        moved = list(chosen)
        for i, group in enumerate(groups):
            mine = tuple(w for w in each if set(w.parts) <= group)
            parts = {name for w in mine for name in w.parts}
            if mine:
                moved[i] = (*mine, *(Want((name,)) for name in sorted(group - parts)))
        if _loss(programs, _storage(types, moved)) < _loss(programs, _storage(types, chosen)):
            chosen = moved
    return chosen


def choose_storage(sets: Sequence[CandidateSet]) -> tuple[Storage, dict[str, float]]:
    """The storage of one block kind, and the mean loss of each alternative that was refused.

    `sets` are the block's candidates in all programs (their functions have the same weights). The
    losses are ratios over the chosen storage, for `explain`; one that leaves a program without a
    cover is not among them.
    """
    types: dict[str, WeightType] = {}
    for cset in sets:
        types.update(weight_types(cset.block.function))
    programs = [_Scored(cset) for cset in sets]
    asked = {w for p in programs for wants in p.wants for w in wants}
    wants = {w for w in asked if form_refusal(types, w) is None}
    groups = _groups(wants)
    chosen = [_options(group, wants)[0] for group in groups]
    losses: dict[str, float] = {}
    for _ in range(2):  # a second round lets early groups see late choices
        before = list(chosen)
        losses = {}
        for i, group in enumerate(groups):
            rest = [w for j, c in enumerate(chosen) if j != i for w in c]
            scored = sorted(
                (_loss(programs, Storage(types, (*rest, *option))), option)
                for option in _options(group, wants)
            )
            least, chosen[i] = scored[0]
            for loss, option in scored[1:]:
                if loss < UNCOVERED / len(programs):
                    losses[" ".join(w.stored_name for w in option)] = loss - least
        chosen = _moved_together(programs, types, wants, groups, chosen)
        if chosen == before:
            break
    return _storage(types, chosen), losses


def covers_under(sets: Sequence[CandidateSet], storage: Storage) -> list[Cover]:
    """Every program's cover of the block under the chosen storage."""
    return [cover(cset, storage.refusal) for cset in sets]
