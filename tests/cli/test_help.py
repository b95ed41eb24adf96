"""`--help` is a page of a terminal; `--help-all` leaves nothing out."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields

import pytest
from command_line import command_app, lostwax

from lostwax.cli.commands import COMMANDS
from lostwax.cli.decided import Decided
from lostwax.cli.help_page import FOREIGN


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def page(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status, out, err = lostwax(capsys, *arguments)
    assert (status, err) == (0, "")
    return out


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_the_help_of_a_command_fits_a_terminal(
    name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = page(capsys, *(name or "").split(), "--help").splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    if name:
        assert all(f"  {example}" in lines for example in COMMANDS[name].examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_both_pages_name_every_option_and_one_explains_them(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    short, whole = page(capsys, *name.split(), "--help"), page(capsys, *name.split(), "--help-all")
    found = command_app(name).assemble_argument_collection(parse_docstring=True)
    options = [a for a in found if a.name != "*"]
    compared = {f"--{each.name.replace('_', '-')}" for each in fields(Decided)}
    foreign = [o for o in options if name == "serve" and o.name in compared]
    if foreign:
        assert f"{FOREIGN}: {len(foreign)}, which --help-all explains\n" in short
    for option in options:
        if option not in foreign:
            assert re.search(rf"(?<![\w-]){re.escape(option.name)}(?![\w-])", short), option.name
        assert re.search(rf"^  (-o, )?{re.escape(option.name)}(?![\w-])", whole, re.M), option.name
        said = str(option.parameter.help or "").split()
        assert said, f"{name} {option.name} is not explained"
        assert " ".join(said) in " ".join(whole.split()), "cut off"
    assert max(map(len, whole.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_name_options_that_there_are(name: str) -> None:
    known = {n for a in command_app(name).assemble_argument_collection() for n in a.names}
    for example in COMMANDS[name].examples:
        words, called = shlex.split(example.replace("<(", " ")), ["lostwax", *name.split()]
        assert called == words[words.index("lostwax") :][: len(called)]
        assert {w for w in words if w.startswith("-") and w != "-"} <= known
