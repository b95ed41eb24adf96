"""The shape of the tree: rooms behind their links, files of reviewable length, nothing unsafe.

Knows no lostwax code: it reads the tree as text.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("backends", "containers", "evals", "frontend", "ir", "server")
CODE = (*ROOMS, "src", "tests", "benchmarks")
MAX_LINES = 400

# Each pattern with what to use in its place.
UNSAFE = {
    r"\b(import|from) pickle\b|\bpickle\.\w+\(|allow_pickle\s*=\s*True": "safetensors or msgspec",
    r"trust_remote_code\s*=\s*True": "the loader of frontend/, which runs no checkpoint's code",
    r"shell\s*=\s*True": "an argument list",
    r"weights_only\s*=\s*False": "safetensors",
}


def _files(*suffixes: str) -> list[Path]:
    """Source files by their real path: the links under src/ are not followed."""
    return [
        path
        for folder in CODE
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in suffixes
        and path.is_file()
        and not any(parent.is_symlink() for parent in path.parents)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_link_is_relative_and_reaches_its_room(room: str) -> None:
    link = ROOT / "src" / "lostwax" / room
    assert link.is_symlink(), f"{link} must be a symbolic link to ../../{room}"
    assert link.readlink() == Path("..", "..", room)
    assert link.resolve() == ROOT / room
    assert (link / "__init__.py").is_file()


def test_the_models_are_reached_where_the_wheel_has_them() -> None:
    link = ROOT / "src" / "lostwax" / "models"
    assert link.readlink() == Path("..", "..", "models")
    assert (link / "tiny" / "weights" / "config.json").is_file()


def test_the_locks_are_reached_where_the_wheel_has_them() -> None:
    link = ROOT / "src" / "lostwax" / "lock"
    assert link.readlink() == Path("..", "..", "lock")
    assert (link / "core.txt").is_file()


def test_front_door_holds_nothing_but_the_links_and_itself() -> None:
    names = {path.name for path in (ROOT / "src" / "lostwax").iterdir()} - {"__pycache__"}
    data = {"lock", "models"}
    assert names <= {"__init__.py", "__main__.py", "cli", "py.typed", *data, *ROOMS}, (
        "a new file in src/lostwax/ must also join `only-include` of both targets in pyproject.toml"
    )


def test_no_file_is_longer_than_a_reviewer_reads() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _files(".py", ".cu", ".cpp", ".h")
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long, f"split by idea, not by size: {long}"


def test_children_are_started_by_one_command_that_trusts_no_working_directory() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in _files(".py")
        if path.parts[len(ROOT.parts)] in (*ROOMS, "src")
        and re.search(r"sys\.executable|from sys import|\bmultiprocessing\.", path.read_text())
    }
    assert found == {"ir/contract/own_program.py"}, "use own_program(module)"


@pytest.mark.parametrize("pattern", UNSAFE)
def test_no_unsafe_call_in_the_tree(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _files(".py")
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found, f"use {UNSAFE[pattern]}: {found}"


def test_every_package_says_what_it_does_and_does_not_know() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _files(".py")
        if path.parts[len(ROOT.parts)] in (*ROOMS, "src")
        and not re.match(r'"""[^"]{20,}', path.read_text())
    ]
    assert not silent, f"these modules need a docstring of at least one true sentence: {silent}"
