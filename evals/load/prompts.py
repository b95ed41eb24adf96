"""Makes random prompts of fixed lengths, with prefixes that some share. Knows no tokenizer.

Ids are exact: a prompt has as many tokens as it was made of. Text is made of English words, most of
which are one token to most tokenizers; what counts is what the server's usage says of either.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lostwax.evals.task import TaskError

FIRST_ID = 3
"""Below lie the marks of a text's begin and end and of padding, in V3.2's tokenizer and others."""
_WORDS = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government
number night point home water room mother area money story fact month lot right study book eye
job word business issue side kind head house service friend father power hour game line end
member law car city name team minute idea body back parent face level office door health person
art war history party result change morning reason research girl guy moment air teacher force
education
"""
WORDS = tuple(_WORDS.split())
_PREFIX, _PROMPT = range(2)
"""Streams of the seed: prefixes stay the same, however many prompts are made."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one request asks: text or token ids, and of how many tokens its answer is at most."""

    content: str | list[int]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class RandomPrompts:
    """`prefix_len` tokens that each of `num_prefixes` groups shares, then `input_len` of its own.

    Ids lie in FIRST_ID..vocab_size - 1. Equal fields make equal prompts.
    """

    kind: Literal["ids", "text"]
    input_len: int
    output_len: int
    prefix_len: int = 0
    num_prefixes: int = 1
    vocab_size: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.input_len, self.output_len, self.num_prefixes) < 1 or self.prefix_len < 0:
            raise TaskError("lengths of prompts and answers, and prefixes, must be at least 1")
        if self.vocab_size <= FIRST_ID:
            raise TaskError(f"ids begin at {FIRST_ID}: give a vocabulary of more")

    def __iter__(self) -> Iterator[Prompt]:
        """Prompts without end; the groups take turns."""
        prefixes = [
            self._drawn([_PREFIX, group], self.prefix_len) for group in range(self.num_prefixes)
        ]
        for number in itertools.count():
            ids = prefixes[number % self.num_prefixes] + self._drawn(
                [_PROMPT, number], self.input_len
            )
            content = ids if self.kind == "ids" else " ".join(WORDS[i] for i in ids)
            yield Prompt(content, self.output_len)

    def _drawn(self, stream: list[int], count: int) -> list[int]:
        """Ids of tokens or numbers of words; drawn by numpy, as 8,192 of them take it 0.2 ms."""
        low, high = (FIRST_ID, self.vocab_size) if self.kind == "ids" else (0, len(WORDS))
        return np.random.default_rng([self.seed, *stream]).integers(low, high, count).tolist()
