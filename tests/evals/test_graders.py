"""Every grader takes right answers in their usual dress, and says why others are wrong."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lostwax.evals.graders.by_kind import GRADERS, grade
from lostwax.evals.graders.json_value import JsonReference, require_valid
from lostwax.evals.graders.number import NumberReference, grade_number
from lostwax.evals.graders.validation import Validation
from lostwax.evals.task import Answer, Example, Kind, TaskError, Text, ToolCall

VALIDATION = Validation()


def graded(kind: Kind, reference: Any, answer: Answer | str) -> tuple[bool, str | None, str]:
    made = msgspec.convert(reference, GRADERS[kind].reference)
    example = Example(id="x", kind=kind, request=Text("?"), reference=made)
    answer = Answer(content=answer, text=answer) if isinstance(answer, str) else answer
    found = grade(example, answer, VALIDATION)
    return found.correct, found.answer, found.reason


def cut(content: str) -> Answer:
    return Answer(content=content, finish="length")


END = "<｜end▁of▁sentence｜>"  # noqa: RUF001


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", (True, "42", "correct")),
        (f" 42\n{END}", (True, "42", "correct")),
        ("The answer is 42", (False, "The answer is 42", "wrong_value")),
        ("", (False, None, "no_answer")),
    ],
)
def test_exact(text: str, expected: object) -> None:
    assert graded("exact", {"text": "42"}, text) == expected


def test_last_line_allows_steps_before_it_and_nothing_behind() -> None:
    reference = {"text": "Leo has $114 left."}
    assert graded("last_line", reference, "384 - 270 = 114\nLeo has $114 left.\n")[0]
    assert not graded("last_line", reference, "Leo has $114 left.\nOr so.")[0]
    assert graded("last_line", reference, cut("384 - 270"))[2] == "cut_off"


@pytest.mark.parametrize(
    "text",
    [
        "18",
        "She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18",
        "16 - 3 - 4 = 9. The answer is 18.",
        "The answer is $18.00",
        "**Answer:** 18",
        "so \\boxed{18} and not 3",
        "\\boxed{\\$18}",
        "\\boxed{\\text{18 dollars}}",
        "first \\boxed{17}, no: \\boxed{18}",
        "#### 18\nThat took 2 steps",
        "she earns 18 dollars.",
        "+18",
    ],
)
def test_a_number_is_found_where_people_put_it(text: str) -> None:
    assert graded("number", {"value": "18"}, text)[0]


@pytest.mark.parametrize(
    ("reference", "text", "right"),
    [
        ("1234567", "It is 1,234,567.", True),
        ("1234567", "It is 1234567.0", True),
        ("1234", "of 3,18,1,234", True),
        ("1111", "of 1,111,1111", True),
        ("-3", "The answer is -3", True),
        ("3", "The answer is -3", False),
        ("0.5", "it is .5", True),
        ("18", "#### 19 \nThe answer is 18", False),
        ("18", "18 of 20", False),
        ("0.1", "0.10000000000000000001", False),
    ],
)
def test_numbers_are_compared_as_decimals(reference: str, text: str, right: bool) -> None:
    assert graded("number", {"value": reference}, text)[0] is right


def test_no_number_and_a_number_of_absurd_length() -> None:
    assert graded("number", {"value": "18"}, "eighteen") == (False, None, "no_answer")
    assert graded("number", {"value": "18"}, cut("First, 3"))[2] == "cut_off"
    assert not graded("number", {"value": "18"}, "1" * 100_000)[0]


def test_repeats_vote_by_the_number_whatever_its_spelling() -> None:
    def vote(text: str) -> str | None:
        made = NumberReference("1")
        return grade_number(made, Answer(content=text)).vote

    assert vote("$1,800.00") == vote("1800") == "1800"
    assert vote("-0.0") == vote("0") == "0"
    assert vote("1" * 40 + "2") != vote("1" * 40 + "3")


def test_integers_outside_aimes_range_are_wrong() -> None:
    assert graded("integer", {"value": "25"}, "\\boxed{025}")[0]
    assert graded("integer", {"value": "25"}, "\\boxed{1025}") == (False, "1025", "wrong_value")
    assert graded("integer", {"value": "25"}, "\\boxed{25.5}") == (False, "25.5", "wrong_value")


@pytest.mark.parametrize(
    "text",
    [
        "ANSWER: B",
        "Answer: (B)",
        "The answer is **B**.",
        "I think ANSWER: A at first.\nANSWER: B",
        "answer: $\\boxed{B}$",
        "answer is \\text{B}",
    ],
)
def test_a_letter_is_found(text: str) -> None:
    assert graded("choice", {"letter": "B"}, text) == (True, "B", "correct")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ANSWER: C", "wrong_value"),
        ("B", "no_answer"),
        ("The answer is Boron", "no_answer"),
        ("The answer is a gas", "no_answer"),
    ],
)
def test_other_letters_and_words_are_wrong(text: str, reason: str) -> None:
    assert graded("choice", {"letter": "B"}, text)[2] == reason


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "on": {"type": "boolean"}},
    "required": ["n", "on"],
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"n": 1, "on": true}', "correct"),
        ('{"on": true, "n": 1.0}', "correct"),
        ('{"n": 2, "on": true}', "wrong_value"),
        ('{"n": true, "on": true}', "wrong_schema"),
        ('{"n": 1}', "wrong_schema"),
        ('{"n": 1, "on": true', "malformed"),
        ('```json\n{"n": 1, "on": true}\n```', "malformed"),
        ('{"n": 1, "n": 1, "on": true}', "malformed"),
        ('{"n": 1e999, "on": true}', "malformed"),
        ("[" * 100_000, "malformed"),
        ("", "no_answer"),
    ],
)
def test_json(text: str, reason: str) -> None:
    assert graded("json", {"schema": SCHEMA, "value": {"n": 1, "on": True}}, text)[2] == reason


def test_an_integer_beyond_floats_is_no_multiple() -> None:
    reference = {"schema": {"multipleOf": 0.5}, "value": 1}
    assert graded("json", reference, "1" + "0" * 400)[2] == "wrong_schema"


def test_a_schema_reaches_no_network() -> None:
    reference = JsonReference({"$ref": "http://127.0.0.1:9/schema.json"}, 1)
    with pytest.raises(TaskError, match=r"does not hold: http://127\.0\.0\.1:9"):
        require_valid(reference, VALIDATION)


CALLS = {"calls": [{"name": "add", "arguments": {"a": 2, "b": [1, 2]}}]}


def called(*calls: tuple[str, dict[str, Any]]) -> Answer:
    return Answer(content="", calls=tuple(ToolCall(*call) for call in calls))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (called(("add", {"b": [1, 2], "a": 2})), "correct"),
        (called(("add", {"a": "2", "b": [1, 2]})), "wrong_arguments"),
        (called(("add", {"a": 2, "b": [2, 1]})), "wrong_arguments"),
        (called(("add", {"a": 2, "b": [1, 2], "c": None})), "wrong_arguments"),
        (called(("sum", {"a": 2, "b": [1, 2]})), "wrong_call"),
        (called(*[("add", {"a": 2, "b": [1, 2]})] * 2), "wrong_call"),
        (Answer(content="It is 5."), "wrong_call"),
        (Answer(content=""), "no_answer"),
        (Answer(content="", malformed="the reasoning has no </think>"), "malformed"),
        (Answer(content="", malformed="it breaks off", finish="length"), "cut_off"),
    ],
)
def test_tools(answer: Answer, reason: str) -> None:
    assert graded("tools", CALLS, answer)[2] == reason


def test_calls_are_right_in_their_order_alone() -> None:
    """Also where names alone tell them apart, or arguments alone."""
    pairs: list[list[tuple[str, dict[str, Any]]]] = [
        [("open", {"door": 1}), ("close", {"door": 1})],
        [("open", {"door": 1}), ("open", {"door": 2})],
    ]
    for pair in pairs:
        reference = {"calls": [{"name": name, "arguments": given} for name, given in pair]}
        assert graded("tools", reference, called(*pair))[0]
        assert not graded("tools", reference, called(*reversed(pair)))[0]


def test_a_refusal_is_no_call_and_the_right_words() -> None:
    reference: dict[str, Any] = {"calls": [], "content": "I have no tool for that."}
    assert graded("tools", reference, "I have no tool for that.")[0]
    assert graded("tools", reference, "I have no idea.")[2] == "wrong_value"
    assert graded("tools", reference, called(("add", {})))[2] == "wrong_call"


GRADED: dict[Kind, Any] = {
    "exact": {"text": "42"},
    "last_line": {"text": "42"},
    "number": {"value": "42"},
    "integer": {"value": "42"},
    "choice": {"letter": "B"},
    "json": {"schema": SCHEMA, "value": {"n": 1, "on": True}},
    "tools": CALLS,
}
PIECES = (
    "answer",
    " is ",
    ":",
    "\\boxed{",
    "}",
    "#### ",
    "$",
    "1,000",
    "9",
    ".",
    "{",
    "[",
    "B",
    '"',
)


@pytest.mark.parametrize("kind", GRADED)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=20).map("".join))
def test_any_text_gets_a_grade(kind: Kind, text: str) -> None:
    correct, _, reason = graded(kind, GRADED[kind], text)
    assert correct == (reason == "correct")


@pytest.mark.parametrize("kind", GRADED)
@pytest.mark.parametrize(
    "repeated",
    [
        " ",
        "answer ",
        "answer is",
        "\\boxed{ ",
        "#### ",
        "1,",
        "9",
        "**",
        "{",
        "\n",
        "1,111",
        ",111",
    ],
)
def test_a_model_that_repeats_itself_is_graded_at_once(kind: Kind, repeated: str) -> None:
    for start in ("", "answer is ", "\\boxed{", "#### "):
        began = time.perf_counter()
        graded(kind, GRADED[kind], start + repeated * 50_000 + "1")
        assert time.perf_counter() - began < 2, "linear: some milliseconds"
