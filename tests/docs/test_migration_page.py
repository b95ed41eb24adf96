"""The migration page shows what `lostwax migrate` prints, for every command of both guides."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from command_line import command_app, lostwax
from foreign_commands import GUIDES

from lostwax.cli.foreign_options import LACKING, NEEDLESS

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
Capture = pytest.CaptureFixture[str]


def row(name: str, capsys: Capture) -> str:
    """A guide's command, ours, and the options without a counterpart."""
    _, out, _ = lostwax(capsys, "migrate", GUIDES[name])
    lines = [line for line in out.splitlines() if not line.startswith(("#", "hf "))]
    _, said, _ = lostwax(capsys, "migrate", GUIDES[name], "--json")
    left = [f"`{reason['option']}`" for reason in json.loads(said)["left_out"]]
    ours = "<br>".join(f"`{line}`" for line in lines)
    return f"| {name} | `{GUIDES[name]}` | {ours} | {', '.join(left) or 'nothing'} |"


def test_every_command_of_the_guides_is_a_row_that_migrate_prints(capsys: Capture) -> None:
    rows = [row(name, capsys) for name in GUIDES]
    shown = [line for line in PAGE.splitlines() if line.startswith(("| SGLang, ", "| vLLM, "))]
    assert shown == rows, "put these rows there:\n" + "\n".join(rows)


def test_every_option_that_is_named_exists_somewhere() -> None:
    ours = {
        name
        for command in ("serve", "compile", "eval", "bench serve", "migrate")
        for argument in command_app(command).assemble_argument_collection()
        for name in argument.names
    }
    theirs = {word for command in GUIDES.values() for word in shlex.split(command)}
    guide = {"--num-questions", "--eval-name", "--num-shots", "--random-input", "--local-dir"}
    guide |= {"--random-output", "--request-rate", "--num-prompt", "--device"}
    known = ours | theirs | {*LACKING, *NEEDLESS} | guide
    named = {word.partition("=")[0] for word in re.findall(r"(?<![\w-])--[a-z][\w.-]*", PAGE)}
    assert named - known - {"--json"} == set()


def test_every_name_that_serve_takes_from_elsewhere_is_in_a_table() -> None:
    arguments = command_app("serve").assemble_argument_collection()
    foreign = {name for a in arguments for name in a.names if len(a.names) > 1}
    assert {name for name in foreign if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize("name", [*LACKING, *NEEDLESS])
def test_reasons_are_one_clause(name: str) -> None:
    why = LACKING.get(name) or NEEDLESS[name]
    assert why.endswith(": leave it out") == (name in NEEDLESS)
    assert not why.endswith(".")


def test_our_commands_beside_the_guide_s_other_ones_are_read() -> None:
    shown = re.findall(r"`lostwax (eval|bench serve) ([^`]*)`", PAGE)
    assert shown
    for command, words in shown:
        names = {w.partition("=")[0] for w in shlex.split(words) if w.startswith("-")}
        known = {n for a in command_app(command).assemble_argument_collection() for n in a.names}
        assert names <= known, command
