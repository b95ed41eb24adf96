"""Chooses how a block kind's weights are stored, over all programs that run it.

One copy of a weight serves every program. The choice goes by connected group (a concatenation
couples its parts): the form under which the programs' covers lose least, each program measured
against its own best so that long programs do not outvote short ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lostwax.backends.cover import CandidateSet, Cover, NoCover, cover
from lostwax.backends.storage import (
    Storage,
    Want,
    WeightType,
    concat_refusal,
    want_of,
    weight_types,
)

Options = list[tuple[Want, ...]]


def _wants(sets: Sequence[CandidateSet], types: Mapping[str, WeightType]) -> set[Want]:
    """Every form that some lowering of some program asks for and that can be stored."""
    found: set[Want] = set()
    for cset in sets:
        for priced in cset.priced:
            if priced.candidate.lowering is None:
                continue
            for operand in priced.candidate.weight_operands():
                want = want_of(priced.candidate, operand)
                if want is not None and concat_refusal(dict(types), want) is None:
                    found.add(want)
    return found


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


def _regret(sets: Sequence[CandidateSet], storage: Storage, best: Sequence[int]) -> float:
    total = 0.0
    for cset, least in zip(sets, best, strict=True):
        try:
            total += cover(cset, storage.refusal).total / max(least, 1)
        except NoCover:
            return float("inf")
    return total


def choose_storage(sets: Sequence[CandidateSet]) -> tuple[Storage, dict[str, float]]:
    """The storage of one block kind, and the mean loss of each alternative that was refused.

    `sets` are the block's candidates in all programs (their functions have the same weights). The
    losses are ratios over the chosen plan, for `explain`.
    """
    types: dict[str, WeightType] = {}
    for cset in sets:
        types.update(weight_types(cset.block.function))
    wants = _wants(sets, types)
    chosen: dict[int, tuple[Want, ...]] = {}
    groups = _groups(wants)
    for i, group in enumerate(groups):
        chosen[i] = _options(group, wants)[0]
    best = [cover(cset, lambda candidate: None).total for cset in sets]
    losses: dict[str, float] = {}
    for _ in range(2):  # a second round lets early groups see late choices
        before = dict(chosen)
        losses = {}
        for i, group in enumerate(groups):
            scored: list[tuple[float, tuple[Want, ...]]] = []
            for option in _options(group, wants):
                rest = [w for j, c in chosen.items() if j != i for w in c]
                regret = _regret(sets, Storage(types, (*rest, *option)), best)
                scored.append((regret / len(sets), option))
            scored.sort()
            chosen[i] = scored[0][1]
            for regret, option in scored[1:]:
                losses[" ".join(w.stored_name for w in option)] = regret - scored[0][0]
        if chosen == before:
            break
    return Storage(types, tuple(w for c in chosen.values() for w in c)), losses


def covers_under(sets: Sequence[CandidateSet], storage: Storage) -> list[Cover]:
    """Every program's cover of the block under the chosen storage."""
    return [cover(cset, storage.refusal) for cset in sets]
