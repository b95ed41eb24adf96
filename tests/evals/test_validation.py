"""A schema of anybody's, and an answer to it: whatever they are, there is a grade within bounds."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from lostwax.evals.graders.json_value import JsonReference, grade_json
from lostwax.evals.graders.validation import Validation, ValidationTooLong
from lostwax.evals.graders.validation_process import MAX_MEMORY_BYTES
from lostwax.evals.jsonl import MAX_DEPTH
from lostwax.evals.run import Outcome, Runner
from lostwax.evals.send import Patience, Sender
from lostwax.evals.task import Answer, Sampling, TaskError
from lostwax.evals.task_file import read_task

LIMIT_S = 0.3
BACKTRACKING = {"pattern": "^(a+)+$"}
LONG: dict[str, tuple[dict[str, Any], Any]] = {
    "a pattern": (BACKTRACKING, "a" * 40 + "!"),
    "all with all": ({"uniqueItems": True}, [{"a": [i]} for i in range(3000)]),
    "doubling references": (
        {
            "$defs": {
                str(i): {"allOf": [{"$ref": f"#/$defs/{i + 1}"}] * 2} for i in range(24)
            } | {"24": {}},
            "$ref": "#/$defs/0",
        },
        1,
    ),
}  # fmt: skip


def nested(depth: int, key: str, end: Any) -> Any:
    for _ in range(depth):
        end = {key: end}
    return end


def task_file(path: Path, schema: object, value: object) -> Path:
    good = {"id": "a", "kind": "exact", "prompt": "x", "reference": {"text": "y"}}
    bad = {"id": "b", "kind": "json", "prompt": "x"}
    bad["reference"] = {"schema": schema, "value": value}  # pyright: ignore[reportArgumentType]
    path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    return path


@pytest.mark.parametrize("name", LONG)
def test_what_takes_for_ever_is_ended_and_the_next_is_looked_at(name: str, tmp_path: Path) -> None:
    validation = Validation(LIMIT_S)
    assert validation.fault({"type": "integer"}, 1) is None
    began = time.monotonic()
    with pytest.raises(ValidationTooLong, match=r"took longer than 0\.3 s"):
        validation.fault(*LONG[name])
    assert time.monotonic() - began < 10 * LIMIT_S, "and 0.02 s more to see its end"
    assert validation.fault({"type": "integer"}, "x") == "$: 'x' is not of type 'integer'"
    path = task_file(tmp_path / "t.jsonl", *LONG[name])
    with pytest.raises(TaskError, match=r"validation took longer than .* simplify its schema") as e:
        read_task(path, validation=validation)
    assert str(e.value).startswith(f"{path}:2: reference: ")


def test_an_answer_that_takes_for_ever_is_wrong_and_says_so() -> None:
    validation = Validation(LIMIT_S)
    reference = JsonReference(BACKTRACKING, "aaa")
    found = grade_json(reference, Answer(content=json.dumps("a" * 40 + "!")), validation)
    assert (found.correct, found.reason) == (False, "wrong_schema")
    assert found.detail == "the answer's validation took longer than 0.3 s"
    assert grade_json(reference, Answer(content='"aaa"'), validation).correct


def test_other_answers_come_while_one_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    reference = {"schema": BACKTRACKING, "value": "aaa"}
    words = {"bad": json.dumps("a" * 40 + "!"), "good": '"aaa"'}
    lines = [{"id": i, "kind": "json", "prompt": i, "reference": reference} for i in words]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    limit_s = 0.9
    task = read_task(path, validation=Validation(limit_s))

    def answer(request: httpx.Request) -> httpx.Response:
        choice = {"text": words[json.loads(request.content)["prompt"]], "finish_reason": "stop"}
        stream = httpx.ByteStream(json.dumps({"choices": [choice]}).encode())
        return httpx.Response(200, stream=stream)

    async def run() -> tuple[Outcome, float]:
        transport = httpx.MockTransport(answer)
        longest, last = 0.0, time.monotonic()

        async def beat() -> None:
            nonlocal longest, last
            while True:
                await asyncio.sleep(0.01)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()

        async with httpx.AsyncClient(transport=transport, base_url="http://x/v1") as http:
            beating = asyncio.create_task(beat())
            outcome = await Runner(Sender(http, Patience()), "m").run(task, Sampling(), None)
            beating.cancel()
        return outcome, longest

    outcome, longest = asyncio.run(run())
    assert outcome.failures == []
    grades = {sample.id: sample.grade for sample in outcome.samples}
    assert grades["good"].correct
    assert grades["bad"].detail == "the answer's validation took longer than 0.9 s"
    assert longest < 0.6, "the loop never waits for a validation"


FAULTS: dict[str, tuple[Any, Any, str]] = {
    "a reference to no schema": ({"$ref": "#/title", "title": "abc"}, 1, "cannot be applied"),
    "a reference to itself": ({"$ref": "#"}, 1, "nested too deeply"),
    "no pattern": ({"pattern": "("}, "x", "is no JSON Schema"),
    "a dialect that is none": ({"$schema": 5}, 1, "its $schema is no text"),
    "an anchor of nothing": (
        {"$ref": "#nowhere"},
        1,
        "refers to what it does not hold: NoSuchAnchor: 'nowhere'",
    ),
    "900 times not": (nested(900, "not", {}), 1, f"nested more than {MAX_DEPTH} deep"),
    "a deep value": ({}, nested(MAX_DEPTH, "a", 1), f"nested more than {MAX_DEPTH} deep"),
    "half a character": ({"pattern": "\ud800"}, "x", "JSON is malformed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_schema_that_cannot_be_applied_names_its_file_and_line(
    tmp_path: Path, fault: str
) -> None:
    schema, value, message = FAULTS[fault]
    path = task_file(tmp_path / "t.jsonl", schema, value)
    with pytest.raises(TaskError) as caught:
        read_task(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:2: ")
    assert message in said
    assert said.isprintable()


def test_tools_that_are_nested_deeply_name_their_file_and_line(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"not": "HERE"}}}
    messages = [{"role": "system", "tools": [tool]}, {"role": "user", "content": "x"}]
    line = {"id": "a", "kind": "tools", "messages": messages, "reference": {}}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(line).replace('"HERE"', '{"not": ' * 985 + "1" + "}" * 985))
    with pytest.raises(TaskError, match=r"t\.jsonl:1: it is nested more than"):
        read_task(path)


def test_brackets_in_words_are_no_nesting(tmp_path: Path) -> None:
    text = '[{"\\' * 3 * MAX_DEPTH
    line = {"id": "a", "kind": "exact", "prompt": text, "reference": {"text": text}}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(line))
    assert len(read_task(path).examples) == 1


def test_a_schema_that_fails_at_an_answer_alone_makes_it_wrong() -> None:
    schema = {"anyOf": [{"type": "integer"}, {"$ref": "#/title"}], "title": "abc"}
    validation = Validation()
    reference = JsonReference(schema, 1)
    assert grade_json(reference, Answer(content="1"), validation).correct
    found = grade_json(reference, Answer(content='"x"'), validation)
    assert found.reason == "wrong_schema"
    assert "cannot be applied" in found.detail


def test_its_process_has_a_bound_of_memory() -> None:
    validation = Validation()
    assert validation.fault({}, 1) is None
    process = validation._process  # pyright: ignore[reportPrivateUsage]
    assert process is not None
    most, _ = resource.prlimit(process.pid, resource.RLIMIT_AS)
    assert 0 < most <= MAX_MEMORY_BYTES


def test_its_process_ends_with_it() -> None:
    validation = Validation()
    assert validation.fault({}, 1) is None
    process = validation._process  # pyright: ignore[reportPrivateUsage]
    assert process is not None
    assert process.poll() is None
    del validation
    assert process.returncode == 0
