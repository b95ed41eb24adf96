"""Each listed fault can still be planted: the text that it changes is there, once, and is Python.

`./dev planted` plants them and runs the tests that ought to see them.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from planted_faults import ROOT, Fault, StaleFault, all_faults, faults_of

FAULTS = all_faults()
LEAST = 25
ROOMS = (
    "server/engine",
    "server/formats",
    "server/gateway",
    "backends/runtime",
    "backends/records",
    "backends/rocm",
)


@pytest.mark.parametrize("file", sorted({fault.file for fault in FAULTS}))
def test_the_faults_of_a_file_can_be_planted(file: str) -> None:
    source = (ROOT / file).read_text()
    for fault in (each for each in FAULTS if each.file == file):
        planted = fault.planted(source)
        assert planted != source
        ast.parse(planted)
        for name in fault.tests:
            assert (ROOT / name.partition("::")[0]).is_file(), f"{fault.what}: {name} is not there"


def test_no_two_faults_of_a_file_have_one_name() -> None:
    assert max(Counter((fault.file, fault.what) for fault in FAULTS).values()) == 1


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_enough_of_them(room: str) -> None:
    assert sum(fault.room == room for fault in FAULTS) >= LEAST


def test_a_fault_whose_text_is_gone_or_stands_twice_says_so() -> None:
    fault = Fault("wrong", "a/b.py", "x = 1", "x = 2", ("tests/test_a.py",))
    assert fault.planted("x = 1\n") == "x = 2\n"
    for source in ("x = 3\n", "x = 1\nx = 1\n"):
        with pytest.raises(
            StaleFault, match=r"a/b.py: the text of 'wrong' stands there [02] times"
        ):
            fault.planted(source)


def test_a_list_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "some.faults"
    head = "file a/b.py\ntests test_a.py server/test_b.py::test\n\n"
    path.write_text(f"{head}one\n-  x\n-    y\n+  z\n\ntwo\n-u\n")
    tests = ("tests/test_a.py", "tests/server/test_b.py::test")
    one = Fault("one", "a/b.py", "  x\n    y", "  z", tests)
    assert list(faults_of(path)) == [one, Fault("two", "a/b.py", "u", "", tests)]
    for text in ("one\n-x\n", f"{head}one\n+x\n", f"{head}one\n-x\nno sign\n"):
        path.write_text(text)
        with pytest.raises(StaleFault, match=r"some\.faults: 'one' is no fault"):
            list(faults_of(path))
