"""API keys as an operator gives them, and what the server keeps of them. Knows no request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from lostwax.ir.contract.foreign_file import BadFile, read_bounded

MAX_FILE_BYTES = 65536
MAX_KEY_CHARS = 512
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY_CHARS}}}")


class BadKey(ValueError):
    """A key, or a file of keys, that cannot be used; the message never repeats a key."""


def require_key(key: str) -> None:
    """BadKey unless a header can carry the key."""
    if not _KEY.fullmatch(key):
        raise BadKey(f"must be 1 to {MAX_KEY_CHARS} visible ASCII characters without blanks")


def read_keys(path: Path) -> list[str]:
    """The keys of a file, one a line; empty lines are none."""
    try:
        content = read_bounded(path, MAX_FILE_BYTES)
    except BadFile as error:
        raise BadKey(f"{error}; give a file with a key a line") from error
    lines = content.decode("utf-8", errors="replace").splitlines()
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise BadKey(f"{path} holds no key; give a file with a key a line")
    for number, line in enumerate(lines, 1):
        if line.strip() and not _KEY.fullmatch(line.strip()):
            raise BadKey(
                f"line {number} of {path} is no key: 1 to {MAX_KEY_CHARS} visible ASCII characters"
                " without blanks are expected"
            )
    return keys


def digests_of(keys: Iterable[str]) -> tuple[bytes, ...]:
    """What the server keeps of its keys."""
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)
