"""GSM8K from its own files: {"question", "answer"}, the answer ending in `#### N`.

The prompt is the one of the published V3.2 numbers (8 and 20 shots by /v1/completions): solved
questions, each with its answer as the file has it, then the question. The shots are the first ones
of the training file, the same for every question.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lostwax.evals.graders.by_kind import grade
from lostwax.evals.graders.number import NumberReference, read_number
from lostwax.evals.jsonl import read_lines
from lostwax.evals.task import Chat, Example, Sampling, Task, TaskError, Text

MAX_SHOTS = 64
SAMPLING = Sampling(temperature=0.0, max_tokens=512, stop=("\n\nQuestion:",))
CHAT_SAMPLING = Sampling(temperature=0.0, max_tokens=2048)
_BOX = "\nPlease reason step by step, and put your final answer within \\boxed{}."


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of GSM8K's files."""

    question: str
    answer: str


def gsm8k(
    data: Path, train: Path | None = None, shots: int = 8, *, chat: bool = False, thinking: bool
) -> Task:
    """The task of a test file; `chat` asks by messages, where shots are turns before."""
    if not 0 <= shots <= MAX_SHOTS:
        raise TaskError(f"{shots} shots; give 0 to {MAX_SHOTS}")
    if shots and train is None:
        raise TaskError(f"{shots} shots need the training file: give --train FILE, or --shots 0")
    if thinking and not chat:
        raise TaskError("a completion prompt cannot think; ask by --endpoint chat")
    solved = _first(train, shots) if train is not None else []
    examples = tuple(
        Example(
            id=f"gsm8k-{number}",
            kind="number",
            request=_chat(solved, row, thinking) if chat else _text(solved, row),
            reference=NumberReference(_final(place, row)),
        )
        for number, (place, row) in enumerate(read_lines(data, Row))
    )
    if not examples:
        raise TaskError(f"{data} holds no question")
    name = f"gsm8k-{shots}-shot" + ("-chat" if chat else "") + ("-thinking" if thinking else "")
    return Task(name, examples, CHAT_SAMPLING if chat else SAMPLING, grade)


def _first(train: Path, shots: int) -> list[Row]:
    rows: list[Row] = []
    for _, row in read_lines(train, Row):
        if len(rows) == shots:
            break
        rows.append(row)
    if len(rows) < shots:
        raise TaskError(f"{train} has {len(rows)} questions, but --shots is {shots}")
    return rows


def _final(place: str, row: Row) -> str:
    steps, mark, number = row.answer.rpartition("####")
    digits = number.strip().replace(",", "")
    if not (steps and mark) or read_number(digits) is None:
        raise TaskError(f"{place}: the answer does not end in '#### N'")
    return digits


def _text(solved: list[Row], row: Row) -> Text:
    shots = "".join(f"Question: {s.question}\nAnswer: {s.answer}\n\n" for s in solved)
    return Text(f"{shots}Question: {row.question}\nAnswer:")


def _chat(solved: list[Row], row: Row, thinking: bool) -> Chat:
    turns: list[dict[str, str]] = []
    for shot in solved:
        turns += [{"role": "user", "content": shot.question + _BOX}]
        turns += [{"role": "assistant", "content": shot.answer}]
    return Chat((*turns, {"role": "user", "content": row.question + _BOX}), thinking)
