"""The arguments of a call in a history, as an object. Knows no format.

A call that broke comes back with what was told of it, which is no JSON object: the turn behind it,
with the tool's error, must be rendered all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

IN_ONE = "arguments"
"""The name under which a text stands that is no object, as in the encoder of DeepSeek-V4; that of
V3.2 takes none."""


def object_of(arguments: Any) -> Mapping[str, Any] | None:
    """An object, or the one of a JSON text, none of it where that is blank or null; None where it
    is none that can be written: no JSON, another value, too deep, or with half a character."""
    try:
        if isinstance(arguments, str):
            arguments = json.loads(arguments) if arguments.strip() else None
        json.dumps(arguments, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    if arguments is None:
        return {}
    return cast("Mapping[str, Any]", arguments) if isinstance(arguments, Mapping) else None


def readable_object(text: str) -> Mapping[str, Any]:
    """The same of a text; one that holds none stands under one name as it is."""
    found = object_of(text)
    return {IN_ONE: text} if found is None else found
