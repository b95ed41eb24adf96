"""Multiple choice as GPQA asks it, from a local file; options are shuffled anew in every repeat.

Lines are {"question", "correct", "incorrect": [...]} or {"question", "choices": [...], "answer"}
with the answer's index or letter. GPQA's own CSV is read, too. The prompt is that of the published
numbers (simple-evals), sampled as they were: 8 repeats at temperature 1 and top_p 0.95, thinking.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec

from lostwax.evals.graders.by_kind import grade
from lostwax.evals.graders.choice import LETTERS, ChoiceReference
from lostwax.evals.jsonl import MAX_FILE_BYTES, read_lines
from lostwax.evals.task import Answer, Chat, Example, Grade, Sampling, Task, TaskError

SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_tokens=120_000, repeats=8)
_PROMPT = """Answer the following multiple choice question. The last line of your response should \
be of the following format: 'ANSWER: $LETTER' (without quotes) where LETTER is one of {letters}. \
Think step by step before answering.

{question}

{options}"""
_CSV = ("Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3)))


class Row(msgspec.Struct, frozen=True):
    """A line of the file, in one of its two forms; other fields are left alone."""

    question: str
    correct: str | None = None
    incorrect: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    answer: int | str | None = None

    def options(self, place: str) -> tuple[str, ...]:
        """All options, the right one first."""
        if self.correct is not None:
            options = (self.correct, *self.incorrect)
        else:
            index = self.answer
            if isinstance(index, str):
                index = LETTERS.find(index) if len(index) == 1 else None
            if index is None or not 0 <= index < len(self.choices):
                raise TaskError(
                    f"{place}: answer {self.answer!r} names none of {len(self.choices)} choices;"
                    " give correct and incorrect, or choices and answer"
                )
            right = self.choices[index]
            options = (right, *(c for n, c in enumerate(self.choices) if n != index))
        if not 2 <= len(options) <= len(LETTERS) or len(set(options)) < len(options):
            raise TaskError(f"{place}: needs 2 to {len(LETTERS)} different options")
        return options


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Asks an example with its options in the order of one repeat."""

    questions: dict[str, str]
    thinking: bool

    def __call__(self, example: Example, repeat: int, seed: int) -> Example:
        """The example as this repeat asks it; its reference records the order."""
        reference: ChoiceReference = example.reference
        right = reference.options[LETTERS.index(reference.letter)]
        options = sorted(reference.options)  # so that the file's order says nothing
        Random(f"{seed}/{example.id}/{repeat}").shuffle(options)
        letter = LETTERS[options.index(right)]
        return msgspec.structs.replace(
            example,
            request=_chat(self.questions[example.id], options, self.thinking),
            reference=ChoiceReference(letter, tuple(options)),
        )


def gpqa(data: Path, *, thinking: bool = True) -> Task:
    """The task of a file of questions."""
    questions: dict[str, str] = {}
    examples: list[Example] = []
    for number, (place, row) in enumerate(_rows(data)):
        options = row.options(place)
        questions[f"gpqa-{number}"] = row.question
        examples.append(
            Example(
                id=f"gpqa-{number}",
                kind="choice",
                request=_chat(row.question, list(options), thinking),
                reference=ChoiceReference("A", options),
            )
        )
    if not examples:
        raise TaskError(f"{data} holds no question")
    name = "gpqa" if thinking else "gpqa-chat"
    return Task(name, tuple(examples), SAMPLING, grade_option, Shuffle(questions, thinking))


def grade_option(example: Example, answer: Answer) -> Grade:
    """Grade by letter; repeats, whose letters mean different things, vote by the option's text."""
    found = grade(example, answer)
    options: tuple[str, ...] = example.reference.options
    index = LETTERS.find(found.answer) if found.answer and len(found.answer) == 1 else -1
    if not 0 <= index < len(options):
        return found
    return msgspec.structs.replace(found, vote=options[index])


def _chat(question: str, options: list[str], thinking: bool) -> Chat:
    letters = LETTERS[: len(options)]
    listed = "\n".join(f"{a}) {o}" for a, o in zip(letters, options, strict=True))
    text = _PROMPT.format(letters=letters, question=question, options=listed)
    return Chat(({"role": "user", "content": text},), thinking)


def _rows(data: Path) -> Iterator[tuple[str, Row]]:
    if data.suffix != ".csv":
        yield from read_lines(data, Row)
        return
    if not data.is_file() or data.stat().st_size > MAX_FILE_BYTES:
        raise TaskError(f"{data} is no file of at most {MAX_FILE_BYTES} bytes")
    # As spreadsheets write it: with a mark of its byte order.
    with data.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            if lacking := sorted(set(_CSV) - set(reader.fieldnames or ())):
                raise TaskError(f"{data} lacks the columns {lacking}")
            for record in reader:
                question, correct, *incorrect = (record[column].strip() for column in _CSV)
                yield f"{data}:{reader.line_num}", Row(question, correct, tuple(incorrect))
        except (csv.Error, UnicodeDecodeError, AttributeError) as error:
            raise TaskError(f"{data}:{reader.line_num}: {error}") from error
