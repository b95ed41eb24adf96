"""The tiny model's task files: made from held-out documents, of the lengths that they name."""

from __future__ import annotations

from functools import cache
from random import Random

import msgspec
import pytest
from recipe.data.document import Document
from recipe.data.mixture import LONG_KINDS, evaluation_sets
from recipe.held_out import LONGEST
from recipe.packing import Encoder
from recipe.write_tasks import file_bytes
from trained_fixtures import TRAINED

from lostwax.evals.answer import read_answer
from lostwax.evals.request import build_request
from lostwax.evals.task import Chat, Example, Grade, Task
from lostwax.evals.task_file import read_task
from lostwax.server.formats.encoding_v32 import EOS, Mode, encode_messages

TASKS = TRAINED.parent / "tasks"
ENCODER = Encoder(TRAINED / "tokenizer.json")
NAMES = list(evaluation_sets(ENCODER.count))
REMEDY = "data or tokenizer changed: run python -m recipe.write_tasks"
MAX_BYTES = 2_500_000


@cache
def task_of(name: str) -> Task:
    return read_task(TASKS / f"{name}.jsonl")


def asked(example: Example) -> tuple[Chat, Mode]:
    assert isinstance(example.request, Chat)
    return example.request, "thinking" if example.request.thinking else "chat"


def grade_of(task: Task, example: Example, text: str) -> Grade:
    """What is said of a completion of an example, asked as `lostwax eval` asks it."""
    request = build_request(example, task.sampling, "m", 0, "completions")
    choice = {"text": text, "finish_reason": "stop"}
    answer, _ = read_answer(request, msgspec.json.encode({"choices": [choice]}))
    return task.grade(example, answer)


MADE_AGAIN = ("story_2", "tools", "kv_256")
REST = [pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in MADE_AGAIN]


@pytest.mark.parametrize("name", [*MADE_AGAIN, *REST])
def test_a_set_is_made_again_byte_by_byte(name: str) -> None:
    assert file_bytes(ENCODER, name) == (TASKS / f"{name}.jsonl").read_bytes(), REMEDY


def test_every_set_has_a_file_and_all_are_light() -> None:
    files = {path.stem: path.stat().st_size for path in TASKS.glob("*.jsonl")}
    assert files.keys() == set(NAMES), REMEDY
    assert sum(files.values()) <= MAX_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_no_question_is_on_the_training_side(name: str) -> None:
    for example in task_of(name).examples:
        request, mode = asked(example)
        assert Document(name, request.messages, mode).held_out, example.id


@pytest.mark.parametrize("name", NAMES)
def test_texts_with_their_answers_have_the_length_they_name(name: str) -> None:
    kind, _, length = name.partition("_")
    for example in task_of(name).examples:
        request, mode = asked(example)
        whole = encode_messages(request.messages, mode) + f"{example.completion}{EOS}"
        tokens = ENCODER.count(whole)
        assert tokens == int(length) if kind in LONG_KINDS else tokens <= LONGEST, REMEDY


@pytest.mark.parametrize("name", NAMES)
def test_the_best_completion_is_right_and_that_of_another_example_is_not(name: str) -> None:
    task, rng = task_of(name), Random(0)
    for example in task.examples:
        assert example.completion is not None
        grade = grade_of(task, example, example.completion)
        assert grade.correct, (example.id, grade)
        others = [e for e in task.examples if e.reference != example.reference]
        assert not grade_of(task, example, str(rng.choice(others).completion)).correct


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(LONG_KINDS)])
def test_what_is_asked_stands_in_the_text(name: str) -> None:
    for example in task_of(name).examples:
        request, _ = asked(example)
        text = str(request.messages[0]["content"])
        fact = str(example.completion)
        if name.startswith("kv"):
            fact = "\n" + fact.removeprefix("The value of ").replace(" is ", ": ").rstrip(".")
        assert fact in text


def test_tools_are_called_used_and_refused() -> None:
    examples = task_of("tools").examples
    assert {len(example.reference.calls) for example in examples} == {0, 1, 2}
    plain = [asked(e)[0].messages[-1]["role"] for e in examples if not e.reference.calls]
    assert plain.count("user") > 3, "some questions find no tool"
    assert plain.count("tool") > 3, "some answers tell what a tool gave"
