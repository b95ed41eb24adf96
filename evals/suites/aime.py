"""AIME from a local file: {"problem", "answer"}, the answer an integer of 0 to 999.

Sampled as the published V3.2 numbers were: 4 repeats at temperature 1 and top_p 0.95, thinking.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lostwax.evals.graders.by_kind import grade
from lostwax.evals.graders.number import NumberReference
from lostwax.evals.jsonl import read_lines
from lostwax.evals.task import Chat, Example, Sampling, Task, TaskError

SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_tokens=64_000, repeats=4)
_BOX = "\nPlease reason step by step, and put your final answer within \\boxed{}."


class Row(msgspec.Struct, frozen=True):
    """A line of the file; other fields (a year, a solution) are left alone."""

    problem: str
    answer: int | str


def aime(data: Path, *, thinking: bool = True) -> Task:
    """The task of a file of problems."""
    examples = tuple(
        Example(
            id=f"aime-{number}",
            kind="integer",
            request=Chat(({"role": "user", "content": row.problem + _BOX},), thinking),
            reference=NumberReference(_integer(place, row)),
        )
        for number, (place, row) in enumerate(read_lines(data, Row))
    )
    if not examples:
        raise TaskError(f"{data} holds no problem")
    return Task("aime" if thinking else "aime-chat", examples, SAMPLING, grade)


def _integer(place: str, row: Row) -> str:
    digits = str(row.answer).strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3):
        raise TaskError(f"{place}: the answer {row.answer!r} is no integer of 0 to 999")
    return str(int(digits))
