"""A TOML file of options: a table a command, keys named as the options are. Runs nothing.

What the command line says goes before what the file says. Every value passes the option's own
check, and an unknown key is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import msgspec
from cyclopts.config import Dict

from lostwax.cli.foreign_command import one_name
from lostwax.cli.foreign_options import hint
from lostwax.cli.option_types import OptionRefused
from lostwax.ir.contract.foreign_file import BadFile, read_bounded

OPTION = "--config"
TABLES = ("serve",)
"""The commands that take a file."""
MAX_BYTES = 1 << 16


def named_file(given: Sequence[str]) -> Path | None:
    """The file that a command line names, where its command takes one; the last counts."""
    if not given or given[0] not in TABLES:
        return None
    found = None
    for index, word in enumerate(given):
        if word.startswith(f"{OPTION}="):
            found = word.removeprefix(f"{OPTION}=")
        elif word == OPTION and index + 1 < len(given):
            found = given[index + 1]
    return Path(found) if found else None


def read_config(path: Path, options: Mapping[str, Any]) -> Dict:
    """What cyclopts reads in place of options that a command line of `serve` does not give.
    `options` are all that there are, each with its type.

    OptionRefused where the file is none, or holds what is no option, or a value of another type.
    """
    try:
        content = read_bounded(path, MAX_BYTES)
        tables: dict[str, Any] = tomllib.loads(content.decode())
    # ValueError: TOMLDecodeError is one, and so is a number of too many digits
    except (BadFile, ValueError, RecursionError) as error:
        where = "" if isinstance(error, BadFile) else f"{path} is no TOML: "
        raise OptionRefused(f"{where}{error}; give a file with a [serve] table") from error
    for name in tables:
        if name not in TABLES:
            remedy = "options stand in the table [serve]"
            raise OptionRefused(f"{path}: nothing reads {name!r}; {_meant(name, TABLES) or remedy}")
        if not isinstance(tables[name], dict):
            raise OptionRefused(f"{path}: {name!r} is no table; write [serve] above the options")
        _require_options(path, tables[name], options)
    return Dict(tables, source=str(path))


def _require_options(path: Path, table: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    for key, value in table.items():
        if key == "config":
            raise OptionRefused(f"{path}: a file names no other; leave out 'config'")
        if key not in options:
            remedy = _foreign(key, options) or _meant(key, options)
            remedy = remedy or "lostwax serve --help-all lists the options"
            raise OptionRefused(f"{path}: no option {key!r}; {remedy}")
        try:
            msgspec.convert(value, _written(options[key]))
        except msgspec.ValidationError as error:
            raise OptionRefused(f"{path}: {key}: {error}") from error


def _foreign(key: str, options: Iterable[str]) -> str | None:
    """What a command line is told of another server's option."""
    own = {f"--{name}" for name in options}
    if one_name(f"--{key}") in own:
        return None
    said = hint(f"--{key}", "serve", own, own)
    return None if said is None else said.partition(": ")[2]


def _written(kind: Any) -> Any:
    """How a file holds an option of this type: a path is a text there."""
    return str | None if Path in {kind, *get_args(kind)} else kind


def _meant(name: str, known: Iterable[str]) -> str | None:
    close = get_close_matches(name.replace("_", "-"), known, 1)
    return f"did you mean {close[0]!r}?" if close else None
