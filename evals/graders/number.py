"""Answers that are a number somewhere in a text. Knows the usual ways to mark the final one.

The first of these that the text holds decides, each time with its last occurrence: `\\boxed{}`,
`#### N`, "answer is N" or "Answer: N", else the last number. Numbers are compared as decimals: 18,
18.0, $18 and 1,800 / 100 are not rounded, and nothing is computed.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, InvalidOperation

import msgspec

from lostwax.evals.task import Answer, Grade, TaskError

_NUMBER = r"[-+]?\$?(?:\d{1,3}(?>(?:,\d{3}(?!\d))+)|\d++)(?:\.\d++)?|[-+]?\$?\.\d++"
# Possessive, or a model that repeats spaces or digits for ever would cost hours. Of groups, (?>…+):
# up to Python 3.11.2 (…)++ keeps the place where its last, failed repeat ended.
_MARKED = (
    re.compile(r"\\boxed\s*+\{\s*+\\?\$?\s*+(?:\\text\s*+\{)?\s*+(" + _NUMBER + r")[^{}]*\}"),
    re.compile(r"####\s*+(" + _NUMBER + ")"),
    re.compile(r"answer(?:\s++is)?\s*+:?\s*+\**+\s*+(" + _NUMBER + ")", re.IGNORECASE),
    re.compile(f"({_NUMBER})"),
)
_AIME = range(1000)
MAX_DIGITS = 64
_EXACT = Context(prec=MAX_DIGITS)
"""Decimal's own context would round to 28 digits."""


class NumberReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The number that is right, in decimal digits."""

    value: str

    def __post_init__(self) -> None:
        if read_number(self.value) is None:
            raise TaskError(f"reference value {self.value!r} is no number; write it in digits")


def find_number(text: str) -> str | None:
    """The digits of the final number of a text, without $ and thousands' commas."""
    for pattern in _MARKED:
        if found := pattern.findall(text):
            return found[-1].replace("$", "").replace(",", "").removeprefix("+")
    return None


def read_number(digits: str) -> Decimal | None:
    """The number that digits stand for; None for anything else, or absurdly many of them."""
    if len(digits) > MAX_DIGITS:
        return None
    try:
        number = Decimal(digits.replace("$", "").replace(",", ""))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def grade_number(reference: NumberReference, answer: Answer) -> Grade:
    """Right where the final number equals the reference."""
    return _grade(reference, answer, find_number(answer.content))


def grade_integer(reference: NumberReference, answer: Answer) -> Grade:
    """AIME: right where the final number is an integer of 0 to 999 and equals the reference."""
    found = find_number(answer.content)
    number = None if found is None else read_number(found)
    if number is not None and (number != number.to_integral_value() or int(number) not in _AIME):
        return Grade(False, found, "wrong_value", "answers are integers of 0 to 999")
    return _grade(reference, answer, found)


def _grade(reference: NumberReference, answer: Answer, found: str | None) -> Grade:
    if found is None:
        return Grade(False, None, "cut_off" if answer.is_cut_off else "no_answer")
    number = read_number(found)
    # One spelling of each number; zero has no sign.
    vote = None if number is None else format(number.normalize(_EXACT) or Decimal(0), "f")
    if number == read_number(reference.value):
        return Grade(True, found, "correct", vote=vote)
    return Grade(False, found, "cut_off" if answer.is_cut_off else "wrong_value", vote=vote)
