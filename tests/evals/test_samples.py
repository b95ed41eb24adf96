"""Finished samples survive a kill; nothing of other settings or damaged is mixed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lostwax.evals.samples import Sample, open_samples
from lostwax.evals.task import Answer, Grade, TaskError, ToolCall

SETTINGS: dict[str, Any] = {"model": "m", "temperature": 0.0, "stop": ("\n",)}


def sample(id_: str) -> Sample:
    answer = Answer(content="é\n", calls=(ToolCall("f", {"n": 10**30, "x": [None, 0.5]}),))
    grade = Grade(True, "x", "correct")
    return Sample(id=id_, repeat=0, digest="d", answer=answer, grade=grade, reference={"a": 1})


def keep(path: Path, *ids: str) -> None:
    with open_samples(path, SETTINGS, restart=False) as file:
        for id_ in ids:
            file.append(sample(id_))


def kept(path: Path, **changed: Any) -> dict[tuple[str, int], Sample]:
    with open_samples(path, SETTINGS | changed, restart=False) as file:
        return file.found


def test_samples_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.jsonl"
    keep(path, "a", "b")
    keep(path, "c")
    assert kept(path) == {(i, 0): sample(i) for i in "abc"}


def test_a_kill_at_any_byte_loses_no_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    keep(path, "a", "b")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    ends = [len(lines[0]), len(lines[0]) + len(lines[1]), len(whole)]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert len(kept(path)) == max(complete - 1, 0)
        keep(path, "z")
        assert ("z", 0) in kept(path), "and the file goes on behind the last whole line"


def test_other_settings_are_refused_until_restart(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    keep(path, "a")
    with pytest.raises(TaskError, match=r"temperature was 0.0 and is 1.0\); give --restart"):
        kept(path, temperature=1.0)
    with open_samples(path, SETTINGS | {"temperature": 1.0}, restart=True) as file:
        assert not file.found
    assert kept(path, temperature=1.0) == {}


def test_damage_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    keep(path, "a", "b")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(TaskError, match=r"t.jsonl:2 is no sample .* give --restart"):
        kept(path)
    path.write_bytes(b"notes\n")
    with pytest.raises(TaskError, match=r"t.jsonl:1 is no sample"):
        kept(path)
    assert path.read_bytes() == b"notes\n", "a file that is not ours is left as it is"


def test_a_line_that_is_too_long_is_no_cut_off_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.jsonl"
    keep(path, "a", "b")
    whole = path.read_bytes()
    monkeypatch.setattr("lostwax.evals.samples.MAX_LINE_BYTES", 50)
    with pytest.raises(TaskError, match=r"t.jsonl:2 is too long; give --restart"):
        kept(path)
    assert path.read_bytes() == whole, "nothing is dropped"


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with (
        open_samples(path, SETTINGS, restart=False),
        pytest.raises(TaskError, match="another process writes"),
        open_samples(path, SETTINGS, restart=False),
    ):
        pass
