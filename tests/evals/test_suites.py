"""Benchmarks' own files become the prompts that published numbers were asked with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lostwax.evals.suites.aime import aime
from lostwax.evals.suites.by_name import Sources, find_tasks
from lostwax.evals.suites.gpqa import gpqa
from lostwax.evals.suites.gsm8k import gsm8k
from lostwax.evals.task import Answer, Chat, TaskError, Text


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def solved(n: int) -> dict[str, str]:
    return {"question": f"Question {n}?", "answer": f"Steps <<{n}={n}>>{n}.\n#### {n},000"}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    train = write(tmp_path / "train.jsonl", *[solved(n) for n in range(1, 6)])
    return write(tmp_path / "test.jsonl", solved(7), solved(8)), train


def test_gsm8k_shots_stand_before_the_question_in_the_files_order(files: tuple[Path, Path]) -> None:
    task = gsm8k(*files, shots=2, thinking=False)
    assert task.name == "gsm8k-2-shot"
    assert task.sampling.stop == ("\n\nQuestion:",)
    assert task.examples[0].request == Text(
        "Question: Question 1?\nAnswer: Steps <<1=1>>1.\n#### 1,000\n\n"
        "Question: Question 2?\nAnswer: Steps <<2=2>>2.\n#### 2,000\n\n"
        "Question: Question 7?\nAnswer:"
    )
    assert task.grade(task.examples[0], Answer(content="...\n#### 7000")).correct
    assert not task.grade(task.examples[0], Answer(content="...\n#### 7")).correct


def test_gsm8k_by_chat_asks_in_turns(files: tuple[Path, Path]) -> None:
    request = gsm8k(*files, shots=1, chat=True, thinking=True).examples[1].request
    assert isinstance(request, Chat)
    assert [m["role"] for m in request.messages] == ["user", "assistant", "user"]
    assert request.thinking


def test_gsm8k_says_what_is_missing(files: tuple[Path, Path], tmp_path: Path) -> None:
    data, train = files
    with pytest.raises(TaskError, match=r"8 shots need the training file: give --train FILE"):
        gsm8k(data, thinking=False)
    with pytest.raises(TaskError, match=r"has 5 questions, but --shots is 8"):
        gsm8k(data, train, 8, thinking=False)
    for answer in ("5", "#### 5", "Add.\n#### 5 dollars"):
        bad = write(tmp_path / "bad.jsonl", solved(1), {"question": "?", "answer": answer})
        with pytest.raises(TaskError, match=r"bad.jsonl:2: the answer does not end in '#### N'"):
            gsm8k(bad, shots=0, thinking=False)


GPQA = {"question": "Which {gas}?", "correct": "neon", "incorrect": ["argon", "xenon", "radon"]}


def test_gpqa_options_are_shuffled_anew_in_every_repeat_and_recorded(tmp_path: Path) -> None:
    task = gpqa(write(tmp_path / "q.jsonl", GPQA))
    letters: set[str] = set()
    for repeat in range(16):
        asked = task.vary(task.examples[0], repeat, 0)
        again = task.vary(task.examples[0], repeat, 0)
        assert asked == again
        letters.add(asked.reference.letter)
        assert isinstance(asked.request, Chat)
        text = asked.request.messages[0]["content"]
        assert f"{asked.reference.letter}) neon" in text
        assert "Which {gas}?" in text
        assert "one of ABCD" in text
        found = task.grade(asked, Answer(content=f"ANSWER: {asked.reference.letter}"))
        assert found.correct
        assert found.vote == "neon", "repeats vote by text: letters differ between them"
    assert letters == set("ABCD")
    assert task.vary(task.examples[0], 0, 1) != task.vary(task.examples[0], 0, 0)


def test_gpqa_reads_choices_with_an_answer_and_its_own_csv(tmp_path: Path) -> None:
    choices = {"question": "?", "choices": ["argon", "neon"], "answer": "B"}
    path = write(tmp_path / "q.jsonl", choices, choices | {"answer": 1})
    for example in gpqa(path).examples:
        assert example.reference.options == ("neon", "argon")
    csv = tmp_path / "gpqa.csv"
    csv.write_text(
        "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
        '"What,\nnow?",a,b,c,d\n'
    )
    (example,) = gpqa(csv).examples
    assert example.reference.options == ("a", "b", "c", "d")
    csv.write_text(csv.read_text(), encoding="utf-8-sig")  # as spreadsheets do
    assert gpqa(csv).examples == (example,)


@pytest.mark.parametrize("head", [b"Caf\xe9", b"x" * 200_000])
def test_gpqa_refuses_a_csv_that_cannot_be_read(tmp_path: Path, head: bytes) -> None:
    csv = tmp_path / "gpqa.csv"
    csv.write_bytes(head + b",Question\n")
    with pytest.raises(TaskError, match=r"gpqa.csv:0: .*(can't decode|field larger)"):
        gpqa(csv)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?"}, "answer None names none of 0 choices"),
        ({"question": "?", "choices": ["a", "b"], "answer": "C"}, "'C' names none of 2 choices"),
        ({"question": "?", "choices": ["a", "b"], "answer": -1}, "-1 names none of 2 choices"),
        ({"question": "?", "choices": ["a", "b"], "answer": "AB"}, "'AB' names none of 2 choices"),
        ({"question": "?", "correct": "a", "incorrect": ["a"]}, "different options"),
        ({"question": "?", "correct": "a"}, "different options"),
    ],
)
def test_gpqa_names_what_is_wrong(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "q.jsonl", row)
    with pytest.raises(TaskError, match=f"q.jsonl:1: .*{message}"):
        gpqa(path)


def test_aime_takes_integers_below_a_thousand(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"problem": "?", "answer": "025", "year": 2025})
    task = aime(path)
    assert (task.sampling.repeats, task.sampling.top_p) == (4, 0.95)
    assert task.examples[0].reference.value == "25"
    for answer in (1000, "x", -1, "9" * 5000, "0000000001000"):
        write(path, {"problem": "?", "answer": answer})
        with pytest.raises(TaskError, match="no integer of 0 to 999"):
            aime(path)


def test_names_are_found_or_corrected(tmp_path: Path) -> None:
    line = {"id": "a", "kind": "exact", "prompt": "x", "reference": {"text": "y"}}
    for name in ("tools", "json"):
        write(tmp_path / f"{name}.jsonl", line)
    sources = Sources(tmp_path)
    assert [t.name for t in find_tasks(["tiny"], sources)] == ["json", "tools"]
    assert [t.name for t in find_tasks(["tiny"], sources, ["tools"])] == ["tools"]
    file = str(tmp_path / "json.jsonl")
    assert [t.name for t in find_tasks([file], sources)] == ["json"]
    other = write(tmp_path.parent / "json.jsonl", line)
    for names, only, message in (
        ([file, str(other)], [], "are both named 'json'"),
        (["tinny"], [], "Did you mean 'tiny'"),
        (["tiny"], ["tool"], "Did you mean 'tools'"),
        (["gsm8k"], [], "gsm8k needs its questions: give --data FILE"),
        (["gsm8k", "aime"], [], "run one at a time"),
    ):
        with pytest.raises(TaskError, match=message):
            find_tasks(names, sources, only)
    with pytest.raises(TaskError, match="lacks the tiny model's tasks"):
        find_tasks(["tiny"], Sources(tmp_path / "none"))
