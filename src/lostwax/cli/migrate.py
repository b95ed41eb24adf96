"""`lostwax migrate`: the command of another server in our words. Runs nothing."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter

from lostwax.backends.runtime.say import result, result_json
from lostwax.cli.foreign_command import MAX_CHARS, read_command
from lostwax.cli.migration import migrate as translated
from lostwax.cli.option_types import Json, TargetName
from lostwax.cli.translation import Migration

TARGET = "cuda-sm90a"
"""Where both servers' guides for this model run: H100 and H200."""
LEFT_OUT = 3
"""The status where an option has no counterpart."""


def migrate(
    command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    target: TargetName = TARGET,
    json_: Json = False,
) -> None:
    """Print the command of SGLang's or vLLM's server as commands of ours; run none.

    Lines behind # say what has no counterpart and why, what is needless here, and which of our
    defaults are said because theirs are others. The status is 3 where something is left out.

    Parameters
    ----------
    command
        The whole command as one text, such as 'vllm serve MODEL -tp 8'; - reads it from standard
        input.
    target
        What to compile for; a command with --device cpu says it itself.
    json_
        Print the same as JSON.
    """
    text = sys.stdin.read(MAX_CHARS + 1) if command == "-" else command
    found = translated(read_command(text), target, _arguments())
    if json_:
        result_json(asdict(found))
    else:
        for line in lines(found):
            result(line)
    if found.left_out:
        raise SystemExit(LEFT_OUT)


def _arguments() -> Any:
    """The options of `serve` as cyclopts knows them."""
    from lostwax.cli.app import make_app

    return make_app()["serve"].assemble_argument_collection()


def lines(found: Migration) -> Iterator[str]:
    """Commands for a shell, and comments."""
    yield from (" ".join(map(_quoted, words)) for words in found.commands)
    for title, reasons in (
        ("left out", found.left_out),
        ("needless", found.needless),
        ("said", found.added),
    ):
        yield from (f"# {title}: {each.option}: {each.why}" for each in reasons)
    yield from (f"# note: {note}" for note in found.notes)


def _quoted(word: str) -> str:
    """For a shell, which still fills in variables."""
    assigned = re.fullmatch(r"([A-Z_]+=)(.*)", word, re.S)
    if assigned:
        return assigned[1] + _quoted(assigned[2])
    if "$" in word and re.fullmatch(r"(?:[\w.:/,@%+-]|\$\w+|\$\{\w+\})+", word, re.ASCII):
        return f'"{word}"'
    return shlex.quote(word)
