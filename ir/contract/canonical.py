"""Canonical JSON: equal content gives equal bytes, so that digests can be taken over it."""

from __future__ import annotations

import msgspec


def canonical(value: object) -> bytes:
    """JSON with sorted keys and one-space indents, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=1) + b"\n"


def canonical_json(value: object) -> bytes:
    """The same on one line without spaces: for keys, records and large files."""
    return msgspec.json.encode(value, order="sorted")
