"""Held-out documents of every evaluation set; retrieval texts of exactly the length they name.

Depends on the tokenizer: another one makes other documents of the same lengths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from recipe.data.document import Document, Message, draw
from recipe.data.mixture import LONG_KINDS, Sized, evaluation_sets
from recipe.data.retrieval import key_values, needle
from recipe.packing import Encoder

LONGEST = 4096
SLACK = 128  # tokens drawn over the length: what the generators leave free, and a few lines
TRIES = 40  # ways to leave lines out of one text
_SIZED: dict[str, Sized] = {"kv": key_values, "needle": needle}
_BREAKS = {"kv": "\n", "needle": r"(?<=\.) "}


def held_out_documents(encoder: Encoder, name: str, count: int, seed: int) -> list[Document]:
    """The first `count` documents of a set, the same for the same seed and tokenizer."""
    rng = Random(f"{seed} {name}")
    kind, _, length = name.partition("_")
    if kind in LONG_KINDS:
        source = _exactly(encoder, rng, kind, int(length))
    else:
        source = _short(encoder, rng, name)
    return [next(source) for _ in range(count)]


def num_tokens(encoder: Encoder, document: Document) -> int:
    """Tokens of a document, the last answer and its end included."""
    return sum(encoder.count(text) for text, _ in document.segments())


def _short(encoder: Encoder, rng: Random, name: str) -> Iterator[Document]:
    family = evaluation_sets(encoder.count)[name]
    while True:
        document = draw(family, rng, held_out=True)
        if num_tokens(encoder, document) <= LONGEST:
            yield document


def _exactly(encoder: Encoder, rng: Random, kind: str, tokens: int) -> Iterator[Document]:
    """Texts a little too long, without some of the lines that nobody asks about."""
    while True:
        document = _SIZED[kind](rng, tokens + SLACK, encoder.count)
        excess = num_tokens(encoder, document) - tokens
        for _ in range(TRIES if excess >= 0 else 0):
            shorter = _without(encoder, rng, document, excess)
            if shorter.held_out and num_tokens(encoder, shorter) == tokens:
                yield shorter
                break


def _without(encoder: Encoder, rng: Random, document: Document, excess: int) -> Document:
    """Leave out random lines of at most `excess` tokens together, as near to it as they come."""
    (first, *rest), answers = document.messages, _answers(document)
    text, question = str(first["content"]).rsplit("\n\n", 1)
    separator = "\n" if document.kind == "kv" else " "
    lines = re.split(_BREAKS[document.kind], text)
    free = [n for n in range(1, len(lines)) if not _holds(lines[n], document, answers)]
    rng.shuffle(free)
    dropped = set[int]()
    for number in free:
        size = encoder.count(lines[number] + separator)
        if size <= excess:
            dropped.add(number)
            excess -= size
        if not excess:
            break
    kept = separator.join(line for n, line in enumerate(lines) if n not in dropped)
    asked: Message = {**first, "content": f"{kept}\n\n{question}"}
    return Document(document.kind, (asked, *rest), document.mode, document.splits)


def _answers(document: Document) -> list[str]:
    return [str(m["content"]) for m in document.messages if m["role"] == "assistant"]


def _holds(line: str, document: Document, answers: list[str]) -> bool:
    """Whether an answer needs this line."""
    if document.kind == "needle":
        return line in answers
    key, value = line.split(": ", 1)
    return f"The value of {key} is {value}." in answers
