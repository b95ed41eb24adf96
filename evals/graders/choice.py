"""Multiple choice: the letter that the text ends with, as `ANSWER: X`."""

from __future__ import annotations

import re

import msgspec

from lostwax.evals.task import Answer, Grade, TaskError

LETTERS = "ABCDEFGHIJ"
_LETTER = re.compile(
    r"\b(?i:answer)(?i:\s++is)?\s*+:?\s*+"
    r"(?>(?:[*$({\[]|\\boxed|\\text|\\mathbf|\\mathrm)*)\s*+([A-J])\b"
)


class ChoiceReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The right letter; `options` are the texts by letter, in the order in which they are asked."""

    letter: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.letter) != 1 or self.letter not in LETTERS:
            raise TaskError(f"reference letter {self.letter!r} must be one of {LETTERS}")
        if len(self.options) > len(LETTERS):
            raise TaskError(f"{len(self.options)} options; at most {len(LETTERS)} have letters")


def find_letter(text: str) -> str | None:
    """The last capital that stands as an answer."""
    found = _LETTER.findall(text)
    return found[-1] if found else None


def grade_choice(reference: ChoiceReference, answer: Answer) -> Grade:
    """Right where the last `ANSWER: X` names the reference's letter."""
    letter = find_letter(answer.content)
    if letter == reference.letter:
        return Grade(True, letter, "correct")
    if answer.is_cut_off:
        return Grade(False, letter, "cut_off")
    return Grade(False, letter, "wrong_value" if letter else "no_answer")
