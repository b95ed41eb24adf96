"""Runs every `.mlir` file below tests/filecheck as its RUN lines say, in this process."""

from __future__ import annotations

import io
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser as CheckParser
from xdsl.parser import Parser

from lostwax.cli.opt import opt
from lostwax.ir.dialects import context

FOLDER = Path(__file__).parents[1] / "filecheck"
FILES = sorted(FOLDER.rglob("*.mlir"))


def _run_lines(file: Path) -> list[str]:
    lines = file.read_text().splitlines()
    return [line.split("RUN:", 1)[1] for line in lines if line.startswith("// RUN:")]


def _opt_output(file: Path, words: list[str]) -> str:
    """What `lostwax opt WORDS` prints for the file."""
    passes = next((w.removeprefix("--passes=") for w in words if w.startswith("--passes=")), "")
    printed = io.StringIO()
    with redirect_stdout(printed):
        opt(file, passes=passes, verify_diagnostics="--verify-diagnostics" in words)
    return printed.getvalue()


def _check(file: Path, printed: str, words: list[str]) -> int:
    prefixes = [w.split("=", 1)[1] for w in words if w.startswith("--check-prefix=")] or ["CHECK"]
    options = Options(match_filename=str(file), check_prefixes=prefixes)
    return Matcher(options, FInput(str(file), printed), CheckParser.from_opts(options)).run()


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(FOLDER)))
def test_file_prints_what_its_check_lines_say(file: Path) -> None:
    runs = _run_lines(file)
    assert runs, f"{file.name} has no RUN line"
    for run in runs:
        command, check = (shlex.split(half) for half in run.split("|"))
        assert command[:2] == ["lostwax", "opt"]
        assert check[0] == "filecheck"
        assert "%s" in command
        assert "%s" in check
        assert _check(file, _opt_output(file, command[2:]), check[1:]) == 0


@pytest.mark.parametrize(
    "file", [f for f in FILES if "invalid" not in f.name and f.name != "call.mlir"],
    ids=lambda f: str(f.relative_to(FOLDER)),
)  # fmt: skip
def test_printed_module_parses_back_to_the_same_text(file: Path) -> None:
    once = str(Parser(context(), file.read_text()).parse_module())
    again = Parser(context(), once).parse_module()
    again.verify()
    assert str(again) == once


def test_every_op_has_a_round_trip_case() -> None:
    ctx = context()
    text = "\n".join(f.read_text() for f in (FOLDER / "ops").glob("*.mlir"))
    registered = [
        op.name
        for name in ctx.registered_dialect_names
        if name not in ("builtin", "func", "lostwax")
        for op in ctx.get_optional_dialect(name).operations  # pyright: ignore[reportOptionalMemberAccess]
    ]
    assert len(registered) > 15
    assert [name for name in registered if name not in text] == []
