"""The grader and the reference of each kind. Knows no answer's source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lostwax.evals.graders.choice import ChoiceReference, grade_choice
from lostwax.evals.graders.json_value import JsonReference, grade_json
from lostwax.evals.graders.number import NumberReference, grade_integer, grade_number
from lostwax.evals.graders.text import TextReference, grade_exact, grade_last_line
from lostwax.evals.graders.tools import ToolsReference, grade_tools
from lostwax.evals.graders.validation import Validation
from lostwax.evals.task import Answer, Example, Grade, Kind


@dataclass(frozen=True, slots=True)
class Grader:
    """The struct of a kind's references, and what compares an answer with one."""

    reference: type[Any]
    grade: Callable[[Any, Answer, Validation], Grade]


def _plain(grade: Callable[[Any, Answer], Grade]) -> Callable[[Any, Answer, Validation], Grade]:
    """A grader that asks for no validation."""

    def graded(reference: Any, answer: Answer, _: Validation) -> Grade:
        return grade(reference, answer)

    return graded


GRADERS: dict[Kind, Grader] = {
    "exact": Grader(TextReference, _plain(grade_exact)),
    "last_line": Grader(TextReference, _plain(grade_last_line)),
    "number": Grader(NumberReference, _plain(grade_number)),
    "integer": Grader(NumberReference, _plain(grade_integer)),
    "choice": Grader(ChoiceReference, _plain(grade_choice)),
    "json": Grader(JsonReference, grade_json),
    "tools": Grader(ToolsReference, _plain(grade_tools)),
}


def grade(example: Example, answer: Answer, validation: Validation | None = None) -> Grade:
    """The grade of an answer; one that breaks the model's format is wrong without a look inside.

    `validation` is what kind `json` asks (default: one for this answer, which starts a process).
    """
    if answer.malformed is not None:
        reason = "cut_off" if answer.is_cut_off else "malformed"
        return Grade(False, answer.text, reason, answer.malformed)
    grader = GRADERS[example.kind]
    try:
        return grader.grade(example.reference, answer, validation or Validation())
    except RecursionError:
        return Grade(False, answer.text, "malformed", "it is nested too deeply to be looked at")
