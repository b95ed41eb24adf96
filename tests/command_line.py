"""The command line in this process, and what a folder holds before and after it. Knows no test."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from unittest.mock import patch

import pytest
from cyclopts import App

from lostwax.cli.app import make_app

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--dtype", "fp32", "--max-context", "512", "--max-tokens", "64", "--max-reqs", "2")


def lostwax(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Status, standard output and standard error of a command."""
    from lostwax.cli import main

    status = 0
    try:
        with patch.dict(os.environ):  # `certify --interpret` says in it how Triton is imported
            main([str(a) for a in arguments])
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def command_app(name: str) -> App:
    """The app of a command, of which `bench serve` has two words."""
    return reduce(App.__getitem__, name.split(), make_app())


def listing(folder: Path) -> list[str]:
    """Every path below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def one_sentence(err: str) -> str:
    """The message of a failed command: one line, and no traceback."""
    lines = [line for line in err.splitlines() if line.startswith("lostwax: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]
