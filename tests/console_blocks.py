"""Reads the fenced blocks of a page and runs those in ```console. Knows no page.

A line that begins with `$ ` is a command, the lines behind it are its output, whole: `…` in a line
stands for anything, alone for any lines, and a number of seconds for any other. A command with no
line behind it shows nothing of its output. A command of lostwax may end with ` < FILE`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SECONDS = re.compile(r"(?:\\ )*\d+\\\.\d\d\\ s\b")
"""In a pattern: aligned by spaces, as phases are."""
ANY_LINES = "…"
Lostwax = Callable[[list[str]], tuple[int, str]]
"""A command of this project: its status, and all that it printed."""


@dataclass(frozen=True)
class Example:
    """A command with output lines that it must print."""

    command: str
    output: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, and what it holds."""

    language: str
    text: str


def fences(page: str) -> list[Fence]:
    """Every fenced block of a page, in order."""
    return [Fence(*found) for found in BLOCK.findall(page)]


def examples(page: str) -> Iterator[Example]:
    """Every command of a page's console blocks, in order."""
    for fence in fences(page):
        if fence.language == "console":
            yield from commands(fence)


def commands(fence: Fence) -> list[Example]:
    """The commands of one block, each with its output."""
    found: list[Example] = []
    for line in fence.text.splitlines():
        if line.startswith("$ "):
            found.append(Example(line[2:]))
        else:
            found[-1].output.append(line)
    return found


def run(example: Example, folder: Path, lostwax: Lostwax) -> None:
    """Run the command in the folder; AssertionError where it fails or prints something else."""
    if example.command.startswith("lostwax "):
        words, _, given = example.command.partition(" < ")
        opened = (folder / given).open() if given else nullcontext(sys.stdin)
        with opened as stdin, patch.object(sys, "stdin", stdin):
            status, printed = lostwax(shlex.split(words)[1:])
    else:
        done = subprocess.run(
            ["bash", "-c", example.command], cwd=folder, capture_output=True, text=True, check=False
        )
        status, printed = done.returncode, done.stdout + done.stderr
    assert status == 0, f"$ {example.command}\n{printed}"
    compare(example, printed)


def compare(example: Example, printed: str) -> None:
    """AssertionError unless the example's lines, where it shows any, are all that was printed."""
    lines, is_gap = [line.rstrip() for line in printed.splitlines()], not example.output
    at = 0
    for wanted in example.output:
        if wanted == ANY_LINES:
            is_gap = True
            continue
        pattern = ".*".join(map(re.escape, wanted.split("…")))
        pattern = SECONDS.sub(lambda _: r" *\d+\.\d\d s", pattern)
        places = range(at, len(lines) if is_gap else min(at + 1, len(lines)))
        found = next((n for n in places if re.fullmatch(pattern, lines[n])), None)
        if found is None:
            raise AssertionError(
                f"$ {example.command}\nprints no such line (any more) behind what is shown before"
                f" it:\n{wanted}\n\n{printed}"
            )
        at, is_gap = found + 1, False
    if at < len(lines) and not is_gap:
        raise AssertionError(
            f"$ {example.command}\nprints a line that is not shown:\n{lines[at]}\n\n{printed}"
        )
