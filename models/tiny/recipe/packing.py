"""Packs documents into fixed lengths, in worker processes. Knows the tokenizer, not the model."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from multiprocessing.queues import Queue
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from recipe.data.document import Document, draw
from recipe.data.mixture import mixture

PAD_ID = 2
PROMPT_WEIGHT = 0.05  # targets that the model need not write, of which much is random
WAITING = 64  # documents to choose from when a pack is filled
Batch = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Tokens and target weights, each [packs, length]."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document in ids; `written` marks what the model is to write."""

    ids: NDArray[np.int64]
    written: NDArray[np.bool_]


class Encoder:
    """Documents to ids."""

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))

    def ids(self, text: str) -> list[int]:
        """No token is added: the text says where it begins and ends."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.ids(text))

    def __call__(self, document: Document) -> Encoded:
        """A document in ids, piece by piece."""
        ids: list[int] = []
        written: list[bool] = []
        for text, learned in document.segments():
            piece = self.ids(text)
            ids += piece
            written += [learned] * len(piece)
        return Encoded(np.array(ids, np.int64), np.array(written, np.bool_))


def batches(
    encoder: Encoder, rng: Random, packs: int, length: int, gsm8k: Path | None
) -> Iterator[Batch]:
    """Endless batches; a document is never cut."""
    families = mixture(encoder.count, length, gsm8k)
    waiting: list[Encoded] = []
    while True:
        tokens = np.full((packs, length), PAD_ID, np.int64)
        weights = np.zeros((packs, length), np.float32)
        for row in range(packs):
            used = 0
            while True:
                while len(waiting) < WAITING:
                    made = encoder(draw(families, rng, held_out=False))
                    if len(made.ids) <= length:
                        waiting.append(made)
                fits = (n for n, d in enumerate(waiting) if len(d.ids) <= length - used)
                chosen = next(fits, None)
                if chosen is None:
                    break
                document = waiting.pop(chosen)
                end = used + len(document.ids)
                tokens[row, used:end] = document.ids
                weights[row, used:end] = np.where(document.written, 1.0, PROMPT_WEIGHT)
                used = end
        yield tokens, weights


@dataclass(frozen=True, slots=True)
class Feed:
    """Where batches come from: any number of processes."""

    tokenizer: Path
    gsm8k: Path | None
    packs: int
    length: int
    seed: int


class Workers:
    """Processes that fill a queue. They share nothing and are ended, then joined, by `close`."""

    def __init__(self, context: Any, feed: Feed, count: int, ahead: int = 32) -> None:
        self._queue: Queue[Batch] = context.Queue(ahead)
        self._processes: list[ForkProcess] = [
            context.Process(target=_work, args=(feed, n, self._queue), daemon=True)
            for n in range(count)
        ]
        for process in self._processes:
            process.start()

    def next(self) -> Batch:
        """The next batch; an error if the processes died."""
        while True:
            try:
                return self._queue.get(timeout=5)
            except queue.Empty:
                if not any(process.is_alive() for process in self._processes):
                    raise RuntimeError("every data process ended; see its message above") from None

    def close(self) -> None:
        """End the processes; without this a command may never return."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._queue.cancel_join_thread()
        self._queue.close()


def _work(feed: Feed, number: int, out: Queue[Batch]) -> None:
    # The parent's standard output must close when the parent ends, not when its last child does.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    rng = Random(f"{feed.seed} {feed.length} {number}")
    for batch in batches(Encoder(feed.tokenizer), rng, feed.packs, feed.length, feed.gsm8k):
        out.put(batch)
