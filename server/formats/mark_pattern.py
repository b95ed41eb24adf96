"""Finds a tokenizer's marks in a text in linear time. Knows no tokenizer and no chat.

A vocabulary brings some 800 marks, most of which begin alike. One alternative each would be tried
at every `<` of a text (5 µs); here what begins alike is read once, and then parts.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

_MAX_DEPTH = 64
"""Forks within forks; `re` compiles them by recursion. Deeper ones are tried one by one."""
_NOTHING = "(?!)"


@cache
def mark_pattern(marks: frozenset[str]) -> re.Pattern[str]:
    """A pattern of one group, which finds the longest mark at each place, as `tokenizers` does."""
    return re.compile(f"({_fork([mark for mark in marks if mark], 0) or _NOTHING})")


def _fork(texts: Collection[str], depth: int) -> str:
    if depth == _MAX_DEPTH:
        return "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))
    alike: dict[str, list[str]] = {}
    for text in texts:
        alike.setdefault(text[0], []).append(text)
    return "|".join(_branch(group, depth + 1) for group in alike.values())


def _branch(texts: list[str], depth: int) -> str:
    """Texts that begin with the same character."""
    first, last = min(texts), max(texts)
    differ = (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    begin = first[: next(differ, len(first))]
    rests = [text[len(begin) :] for text in texts if text != begin]
    if not rests:
        return re.escape(begin)
    may_end = "?" if len(rests) < len(texts) else ""
    return f"{re.escape(begin)}(?:{_fork(rests, depth)}){may_end}"
