"""Reads a JSON object from a file of bounded size. Knows no field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, cast

from lostwax.frontend.config_fields import ConfigError, shown
from lostwax.ir.contract.foreign_file import BadFile, MissingFile, read_bounded


def read_json_object(path: Path, max_bytes: int) -> dict[str, Any]:
    """The object; ConfigError with the path for anything else: no file, a device, no JSON.

    A name that occurs twice is refused: readers differ in which of its values they take.
    """
    try:
        data = read_bounded(path, max_bytes)
    except MissingFile as e:
        raise ConfigError(f"no {path.name} at {path}; give a checkpoint folder that has one") from e
    except BadFile as e:
        raise ConfigError(f"{e}: not a {path.name}; download it again") from e
    try:
        raw: Any = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{path} is not JSON ({e}); download it again") from e
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds {type(raw).__name__}, wants a JSON object")
    return cast("dict[str, Any]", raw)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {shown(twice)} occurs twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
