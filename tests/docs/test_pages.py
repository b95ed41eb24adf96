"""What the pages show is what the commands print; what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import lostwax
from console_blocks import Example, examples, fences, run

ROOT = Path(__file__).parents[2]
PAGES = (
    "model-to-artifact",
    "concepts",
    "cli",
    "tools",
    "migration",
    "operations",
    "evaluation",
    "numerics/certificates",
    "adding-a-target",
    "containers",
    "bring-up",
)
"""In the order in which they are run: the first makes what the others use."""

NOT_RUN = {
    "cli: $ lostwax run ": "it names servers and artifacts that are not here",
    "evaluation: lostwax eval gsm8k ": "GSM8K is not shipped",
    "evaluation: story_2: 88 of 384": "what a long run prints every ten seconds",
    "evaluation: task          accuracy": "what the command above printed",
    "evaluation: lm_eval run ": "lm-eval lives in an environment of its own",
    "load: $ lostwax bench serve ": "run by tests/docs/test_load_page.py, beside a server",
    "load: [{": "asked by tests/docs/test_load_page.py",
    "http: from openai import": "run by tests/docs/test_readme.py, beside a server",
    "structured-output: from typing": "run by tests/server/test_structured_trained.py",
}
"""Blocks that are no ```console, by page and first words, with the reason."""


def _page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def test_every_command_of_the_pages_prints_what_they_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)

    def command(arguments: list[str]) -> tuple[int, str]:
        status, out, err = lostwax(capsys, *arguments)
        return status, err + out  # the result comes last

    for name in PAGES:
        for example in examples(_page(name)):
            run(example, tmp_path, command)


def test_every_block_is_run_or_listed() -> None:
    unlisted, seen = list[str](), set[str]()
    for path in (ROOT / "docs").rglob("*.md"):
        name = str(path.relative_to(ROOT / "docs").with_suffix(""))
        for fence in fences(_page(name)):
            block = f"{name}: {fence.text}"
            found = {start for start in NOT_RUN if block.startswith(start)}
            seen |= found
            if not found and not (fence.language == "console" and name in PAGES):
                unlisted.append(block)
    assert not unlisted, f"make these ```console, or list them with a reason: {unlisted}"
    assert seen == set(NOT_RUN), "every block of the list is there"


def test_a_page_that_shows_something_else_is_noticed(tmp_path: Path) -> None:
    def command(arguments: list[str]) -> tuple[int, str]:
        return 0, "one\ntwo 2\n"

    run(Example("lostwax x"), tmp_path, command)
    run(Example("lostwax x", ["one", "two …"]), tmp_path, command)
    run(Example("lostwax x", ["…", "two 2"]), tmp_path, command)
    run(Example("lostwax x", ["one", "…"]), tmp_path, command)
    with pytest.raises(AssertionError, match="prints a line that is not shown:\ntwo 2"):
        run(Example("lostwax x", ["one"]), tmp_path, command)
    with pytest.raises(AssertionError, match="prints no such line"):
        run(Example("lostwax x", ["two 2"]), tmp_path, command)
    with pytest.raises(AssertionError, match="prints no such line"):
        run(Example("lostwax x", ["one", "…", "one"]), tmp_path, command)
    with pytest.raises(AssertionError, match="prints no such line"):
        run(Example("lostwax x", ["one", "two 2", "three"]), tmp_path, command)
    with pytest.raises(AssertionError, match="prints no such line"):
        run(Example("lostwax x", ["two 3"]), tmp_path, command)
    with pytest.raises(AssertionError, match="prints no such line"):
        run(Example("lostwax x", ["two 2", "one"]), tmp_path, command)
    with pytest.raises(AssertionError, match="false"):
        run(Example("false"), tmp_path, command)


def test_every_page_is_in_the_table_of_contents_and_links_lead_somewhere() -> None:
    listed = set(re.findall(r"(\S+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.M))
    there = {
        str(p.relative_to(ROOT / "docs").with_suffix("")) for p in (ROOT / "docs").rglob("*.md")
    }
    assert listed == there
    on_first = {name for name in there if f"]({name}.md)" in _page("index")}
    assert on_first == there - {"index"}
    for name in there:
        for link in re.findall(r"\]\(([^)#:]+)\)", _page(name)):
            assert (ROOT / "docs" / Path(name).parent / link).is_file(), f"{name}: {link}"


def test_the_command_line_page_names_every_command() -> None:
    from lostwax.cli.app import COMMANDS

    page = _page("cli")
    assert [name for name in COMMANDS if f"| `{name}" not in page] == []


def test_every_word_is_defined_once() -> None:
    words = re.findall(r"\*\*([^*]+?)\.?\*\*", _page("concepts"))
    assert len(words) == len({w.lower() for w in words}) > 30


def test_files_that_pages_name_exist() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for path in re.findall(
            r"`((?:backends|evals|frontend|ir|server|tests)/[\w/.]+)`", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_names_that_the_map_of_the_code_names_are_in_it() -> None:
    named = set(re.findall(r"`([A-Za-z_]\w+)`", (ROOT / "ARCHITECTURE.md").read_text()))
    words = set[str]()
    rooms = ("backends", "containers", "evals", "frontend", "ir", "server")
    for folder in (*rooms, "benchmarks", "src", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            words |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    assert len(named) > 20
    assert named <= words
