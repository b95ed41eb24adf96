"""Reads and runs the ```console blocks of a page. Knows no page.

A line that begins with `$ ` is a command, the lines behind it are lines of its output, in order;
`…` stands for anything.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
Lostwax = Callable[[list[str]], tuple[int, str]]
"""A command of this project: its status, and all that it printed."""


@dataclass(frozen=True)
class Example:
    """A command with output lines that it must print."""

    command: str
    output: list[str] = field(default_factory=list[str])


def examples(page: str) -> Iterator[Example]:
    """Every command of a page, in order."""
    for block in BLOCK.findall(page):
        found: list[Example] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Example(line[2:]))
            else:
                found[-1].output.append(line)
        yield from found


def run(example: Example, folder: Path, lostwax: Lostwax) -> None:
    """Run the command in the folder; AssertionError where it fails or prints something else."""
    if example.command.startswith("lostwax "):
        status, printed = lostwax(shlex.split(example.command)[1:])
    else:
        done = subprocess.run(
            ["bash", "-c", example.command], cwd=folder, capture_output=True, text=True, check=False
        )
        status, printed = done.returncode, done.stdout + done.stderr
    assert status == 0, f"$ {example.command}\n{printed}"
    lines = iter(printed.splitlines())
    for wanted in example.output:
        pattern = ".*".join(map(re.escape, wanted.split("…")))
        if not any(re.fullmatch(pattern, line.rstrip()) for line in lines):
            raise AssertionError(
                f"$ {example.command}\nprints no such line (any more):\n{wanted}\n\n{printed}"
            )
