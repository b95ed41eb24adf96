"""Conversations that jump from one thing to another. Parts held out elsewhere are not used."""

from __future__ import annotations

from random import Random

from recipe.data.arithmetic import arithmetic
from recipe.data.chat import chat
from recipe.data.dates_units import dates_units
from recipe.data.document import Document, Message, draw
from recipe.data.word_problems import word_problem

PARTS = (chat, word_problem, arithmetic, dates_units)


def mixed(rng: Random) -> Document:
    """Two to four parts; the last one's mode is the conversation's."""
    parts = [draw(rng.choice(PARTS), rng, held_out=False) for _ in range(rng.randint(2, 4))]
    messages: list[Message] = []
    for part in parts[:-1]:
        turns = [m for m in part.messages if m["role"] != "system"]
        if part.mode == "chat":  # else answers would stand without the steps that led to them
            messages += turns
    messages += [m for m in parts[-1].messages if m["role"] != "system"]
    return Document("mixed", tuple(messages), parts[-1].mode, splits=False)
