"""Prompts from a file of conversations in ShareGPT's form. Knows no tokenizer and no server.

Asked is a conversation's first turn. Without a length for all answers, an answer may have as many
tokens as the file's has at BYTES_PER_TOKEN; the server's usage says how many it did have.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lostwax.evals.jsonl import read_lines
from lostwax.evals.load.prompts import Prompt
from lostwax.evals.task import TaskError

MAX_FILE_BYTES = 2**30
"""The file that most benchmarks take (ShareGPT_V3_unfiltered_cleaned_split.json) has 673 MB."""
MIN_BYTES, MAX_BYTES = 16, 4096
"""Of a turn that is used: about 4 to 1,024 tokens, which are the bounds of `vllm bench serve`."""
BYTES_PER_TOKEN = 4
"""The usual rule for English text."""
_FORM = '[{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}]'


class _Turn(msgspec.Struct, frozen=True):
    value: str


class _Conversation(msgspec.Struct, frozen=True):
    conversations: list[_Turn]


@dataclass(frozen=True, slots=True)
class Conversations:
    """The usable prompts of a file, in an order that the seed decides; `left_out` were not."""

    prompts: tuple[Prompt, ...]
    left_out: int

    def __iter__(self) -> Iterator[Prompt]:
        """Prompts without end: behind the last comes the first."""
        return itertools.cycle(self.prompts)


def read_conversations(path: Path, output_len: int | None, seed: int) -> Conversations:
    """A JSON list, or JSON Lines (.jsonl). Raises TaskError, which names the place."""
    found = _read(path)
    prompts: list[Prompt] = []
    for conversation in found:
        turns = [turn.value for turn in conversation.conversations[:2]]
        lengths = [len(text.encode(errors="replace")) for text in turns]
        if len(turns) == 2 and all(MIN_BYTES <= length <= MAX_BYTES for length in lengths):
            prompts.append(Prompt(turns[0], output_len or lengths[1] // BYTES_PER_TOKEN))
    if not prompts:
        raise TaskError(
            f"{path} has no conversation whose first two turns have {MIN_BYTES} to {MAX_BYTES}"
            " bytes each; give another file"
        )
    random.Random(seed).shuffle(prompts)
    return Conversations(tuple(prompts), len(found) - len(prompts))


def _read(path: Path) -> list[_Conversation]:
    if path.suffix == ".jsonl":
        return [value for _, value in read_lines(path, _Conversation)]
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise TaskError(f"{path} is no file of at most {MAX_FILE_BYTES} bytes; give a smaller one")
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[_Conversation])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TaskError(f"{path}: {error}; give JSON such as {_FORM}") from error
