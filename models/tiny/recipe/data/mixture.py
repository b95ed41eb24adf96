"""Which families are trained on, how often, and which sets are evaluated. Knows no token ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from recipe.data.arithmetic import arithmetic, drill
from recipe.data.chat import chat
from recipe.data.dates_units import dates_units
from recipe.data.document import Document, Family
from recipe.data.gsm8k import Gsm8k
from recipe.data.json_answers import json_answer
from recipe.data.mixed import mixed
from recipe.data.retrieval import Count, key_values, needle
from recipe.data.tools import tools
from recipe.data.word_problems import word_problem

LONG_KINDS = ("kv", "needle")
MOST_ASKED = 16  # questions about one text: more answers to learn from in as many tokens
Sized = Callable[[Random, int, Count], Document]


@dataclass(frozen=True, slots=True)
class Mixture:
    """Families with their shares of the documents."""

    families: tuple[Family, ...]
    shares: tuple[float, ...]

    def __call__(self, rng: Random) -> Document:
        """A document of one of the families."""
        return rng.choices(self.families, self.shares)[0](rng)


def mixture(count: Count, longest: int, gsm8k: Path | None) -> Mixture:
    """Documents for packs of `longest` tokens; packs of 4,096 hold more retrieval."""
    low, high = (5.0, 10.8) if longest <= 2048 else (9.0, 12.0)
    limit = longest - 8
    shares: list[tuple[Family, float]] = [
        (word_problem, 42),
        (arithmetic, 14),
        (drill, 8),
        (dates_units, 10),
        (tools, 28),
        (json_answer, 10),
        (chat, 10),
        (mixed, 6),
        (_of_length(partial(key_values, most=MOST_ASKED), count, low, high, limit), 13),
        (_of_length(needle, count, low, high, limit), 2),
    ]
    if gsm8k is not None:
        shares.append((Gsm8k(gsm8k), 1))
    return Mixture(tuple(f for f, _ in shares), tuple(s for _, s in shares))


def _of_length(family: Sized, count: Count, low: float, high: float, limit: int) -> Family:
    """Lengths spread evenly over powers of two; one in eight as long as a pack allows."""

    def draw(rng: Random) -> Document:
        tokens = limit if rng.random() < 0.125 else min(int(2 ** rng.uniform(low, high)), limit)
        return family(rng, tokens, count)

    return draw


def evaluation_sets(count: Count) -> dict[str, Family]:
    """Names of the sets, with what draws them; the long ones are as long as they say, in tokens."""
    sets: dict[str, Family] = {
        "arithmetic": arithmetic,
        "dates_units": dates_units,
        "tools": tools,
        "json": json_answer,
        "chat": chat,
    }
    for steps in (1, 2, 3, 4):
        sets[f"story_{steps}"] = partial(_only, word_problem, f"story-{steps}")
    for length in (256, 1024, 2048, 4096):
        sets[f"kv_{length}"] = partial(key_values, tokens=length - 8, count=count)
        sets[f"needle_{length}"] = partial(needle, tokens=length - 8, count=count)
    return sets


def _only(family: Family, kind: str, rng: Random) -> Document:
    while True:
        document = family(rng)
        if document.kind == kind:
            return document
