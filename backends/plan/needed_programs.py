"""Finds programs whose steps another takes as well. Chooses no lowering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lostwax.backends.plan.cover import Cover
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.report_choices import site_of
from lostwax.backends.plan.sizes import bounds_contexts

Choice = tuple[tuple[int, ...], str, tuple[tuple[str, int], ...]]
"""Where, which lowering (or `view`), and its knobs."""


def needed_programs(
    contexts: Sequence[ProgramContext], covers: Sequence[Mapping[str, Cover]]
) -> list[int]:
    """Positions of the programs to keep, in order.

    A program for contexts that are short together is not kept where the next one of its segment and
    bucket, which takes its steps too, has the same lowerings everywhere.
    """
    return [
        i
        for i, context in enumerate(contexts)
        if not bounds_contexts(context.guard) or not _is_repeated(i, contexts, covers)
    ]


def _is_repeated(
    i: int, contexts: Sequence[ProgramContext], covers: Sequence[Mapping[str, Cover]]
) -> bool:
    own = contexts[i]
    for j in range(i + 1, len(contexts)):
        other = contexts[j]
        if (other.segment, other.bucket) == (own.segment, own.bucket):
            takes_its_steps = all(term in own.guard.terms for term in other.guard.terms)
            return takes_its_steps and _choices(covers[i]) == _choices(covers[j])
    return False


def _choices(covers: Mapping[str, Cover]) -> dict[str, list[Choice]]:
    """What was chosen, by block."""
    return {
        name: [
            (
                site_of(p.candidate.block, p.candidate.region),
                p.candidate.name,
                tuple(sorted(p.price.knobs.items())),
            )
            for p in cover.chosen
        ]
        for name, cover in covers.items()
    }
