"""Task files: read strictly, and every mistake is a sentence with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lostwax.evals.jsonl import MAX_LINE_BYTES
from lostwax.evals.request import build_request
from lostwax.evals.task import Chat, Sampling, TaskError, Text
from lostwax.evals.task_file import read_task

FIRST = {"id": "first", "kind": "exact", "prompt": "x", "reference": {"text": "y"}}
ASK = [{"role": "user", "content": "2 + 3?"}]
GOOD: dict[str, Any] = {
    "id": "a",
    "kind": "number",
    "messages": ASK,
    "reference": {"value": "5"},
}


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n")
    return path


def test_a_task_is_named_after_its_file(tmp_path: Path) -> None:
    prompt = {"id": "b", "kind": "exact", "prompt": "2 + 3 =", "reference": {"text": "5"}}
    task = read_task(write(tmp_path / "sums.jsonl", GOOD | {"thinking": True}, "", prompt))
    assert task.name == "sums"
    assert [e.id for e in task.examples] == ["a", "b"]
    assert task.examples[0].request == Chat(tuple(ASK), True)
    assert task.examples[1].request == Text("2 + 3 =")


MISTAKES: dict[str, tuple[dict[str, Any] | str, str]] = {
    "no JSON": ("{", "truncated"),
    "an unknown field": (GOOD | {"refernce": 1}, "unknown field `refernce`"),
    "an unknown kind": (GOOD | {"kind": "prose"}, "Invalid enum value 'prose'"),
    "another reference": (
        GOOD | {"reference": {"text": "5"}},
        "reference: Object contains unknown field `text`",
    ),
    "a reference that is no number": (GOOD | {"reference": {"value": "five"}}, "is no number"),
    "a number as a number": (GOOD | {"reference": {"value": 5}}, "Expected `str`, got `int`"),
    "both": (GOOD | {"prompt": "2 + 3 ="}, "give either messages or prompt"),
    "neither": ({**GOOD, "messages": None}, "give either messages or prompt"),
    "no messages": (GOOD | {"messages": []}, "must end with what the model is to answer"),
    "an answer at the end": (
        GOOD | {"messages": [*ASK, {"role": "assistant", "content": "5"}]},
        "must end with what the model is to answer",
    ),
    "an unknown role": (
        GOOD | {"messages": [{"role": "robot", "content": "hi"}]},
        "has role 'robot'",
    ),
    "an id twice": (FIRST, "id 'first' stands twice"),
    "a schema that is none": (
        GOOD | {"kind": "json", "reference": {"schema": {"type": "number"}, "value": "x"}},
        "not what its schema asks for",
    ),
    "a schema of no version": (
        GOOD | {"kind": "json", "reference": {"schema": {"$schema": 5}, "value": 1}},
        "its $schema is no text",
    ),
    "tools by prompt": (
        {"id": "b", "kind": "tools", "prompt": "x", "reference": {}},
        "kind 'tools' needs messages",
    ),
    "a long line": (" " * (MAX_LINE_BYTES + 1), "more than"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, mistake: str) -> None:
    line, message = MISTAKES[mistake]
    path = write(tmp_path / "t.jsonl", FIRST, line)
    with pytest.raises(TaskError) as caught:
        read_task(path)
    assert f"{path}:2: " in str(caught.value)
    assert message in str(caught.value)


def test_a_mark_in_a_message_is_asked_as_chat_and_never_rendered(tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    messages = [{"role": "user", "content": "What does <think> mean?"}]
    line = {"id": "a", "kind": "exact", "messages": messages, "reference": {"text": "x"}}
    path.write_text(json.dumps(line), encoding="utf-8")
    (example,) = read_task(path).examples
    assert build_request(example, Sampling(), "m", 0, "auto").body["messages"] == messages
    with pytest.raises(TaskError, match="a: a message holds"):
        build_request(example, Sampling(), "m", 0, "completions")


def test_an_empty_file_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="holds no example"):
        read_task(write(tmp_path / "t.jsonl"))
    with pytest.raises(TaskError, match="is no file"):
        read_task(tmp_path / "none.jsonl")
