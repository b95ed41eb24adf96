"""JSON of long lists, made piece by piece. Knows no answer.

The log-probabilities of a long answer are millions of values. Made as one tree they hold the
interpreter for seconds, when they are collected and encoded; piece by piece, other threads run
between, and only the JSON is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


def long_list(items: Iterable[Any]) -> msgspec.Raw:
    """The list as JSON, which other JSON can hold."""
    return msgspec.Raw(b"[" + b",".join(map(msgspec.json.encode, items)) + b"]")
