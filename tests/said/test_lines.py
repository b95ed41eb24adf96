"""What is printed of foreign text: one clean line of bounded length, whoever prints it."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path

import pytest
from command_line import lostwax

from lostwax.backends.runtime.say import (
    MAX_LINE,
    many_lines,
    result,
    result_json,
    say,
    say_json,
)
from lostwax.ir.contract.one_line import one_line

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
HOME = "backends/runtime/say.py"
FOREIGN = {
    "two\nlines": "two lines",
    "crlf\r\n\tend": "crlf   end",
    "\x1b]0;title\x07\x1b[2J": "\\x1b]0;title\\x07\\x1b[2J",
    "c1 \x9b31m": "c1 \\x9b31m",
    "a\u2028b\u0085c\x0bd": "a b c d",
    "user\u202etxt.exe": "user\\u202etxt.exe",
    "zero\u200bwidth\ufeff": "zero\\u200bwidth\\ufeff",
    "half \ud83d": "half \\ud83d",
    "naïve 模型 🙂": "naïve 模型 🙂",
    "": "",
}


@pytest.mark.parametrize(("text", "line"), FOREIGN.items())
def test_foreign_text_becomes_one_line_that_can_be_seen_whole(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize("text", ["x" * 10_000_000, "\U000e0001" * 1_000_000, "a\n" * 5000])
def test_a_line_is_bounded_and_keeps_both_ends(text: str) -> None:
    line = one_line(f"culprit {text} remedy", MAX_LINE)
    assert len(line) == MAX_LINE
    assert line.startswith("culprit ")
    assert line.endswith(" remedy")


def test_text_of_many_lines_keeps_no_control_sequence() -> None:
    assert many_lines("a\n\tb\x1b[31m\x9b\x7f\r\nc é \ud800") == "a\n\tb[31m\nc é ?"


def test_printers_take_what_a_terminal_cannot(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("\x1b[2J\nx")
    result("\udcff")
    result_json({"name": "\x9b\x7f\u202e"})
    printed = capsys.readouterr()
    assert printed.err == "\\x1b[2J x\n"
    first, second = printed.out.splitlines()
    assert first == "\\udcff"
    assert second.isascii()
    assert json.loads(second) == {"name": "\x9b\x7f\u202e"}
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    result("half \ud83d")


def _printers(path: Path) -> list[int]:
    """Lines of a file that print by themselves."""
    found: list[int] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "sys.stdout.write", "sys.stderr.write"):
                found.append(node.lineno)
    return found


def test_every_printer_is_that_of_say() -> None:
    rooms = ("src/lostwax/cli", "backends", "evals", "frontend", "ir", "server")
    files = [p for room in rooms for p in (ROOT / room).rglob("*.py")]
    assert len(files) > 200
    bare = {str(p.relative_to(ROOT)): found for p in files if (found := _printers(p))}
    assert bare.pop(HOME)
    assert not bare, f"print foreign text by {HOME}, so that it stays one clean line: {bare}"


def test_an_error_that_quotes_foreign_text_is_one_line(capsys: Capture, tmp_path: Path) -> None:
    forged = tmp_path / "x\nlostwax: all is well\x1b[2J"
    status, _, err = lostwax(capsys, "plan", forged)
    assert status == 1
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


def test_texts_in_a_line_of_json_are_clean_alone_and_in_a_list(capsys: Capture) -> None:
    say_json({"name": "two\nlines", "names": ["\x1b[2J", "é", 3], "count": 1})
    said = json.loads(capsys.readouterr().err)
    assert said == {"name": "two lines", "names": ["\\x1b[2J", "é", 3], "count": 1}
