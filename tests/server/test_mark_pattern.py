"""Marks are found as `tokenizers` finds them, and at a price that their number does not set."""

from __future__ import annotations

import random
import time

import pytest

from lostwax.server.formats.mark_pattern import mark_pattern

MANY = frozenset(
    {f"<｜place▁holder▁no▁{i}｜>" for i in range(800)} | {"<｜User｜>", "<think>", "</think>"}  # noqa: RUF001
)


@pytest.mark.parametrize(
    ("marks", "text", "found"),
    [
        ((), "a<b>", []),
        (("",), "a", []),
        (("<a>", "<ab>"), "<ab><a><a", ["<ab>", "<a>"]),
        (("a", "ab", "abcd"), "abcabcda", ["ab", "abcd", "a"]),
        (("a", "b"), "cab", ["a", "b"]),
        (("a.c", "a|", "("), "abca.ca|(", ["a.c", "a|", "("]),
        (("<<", "<"), "<<<", ["<<", "<"]),
        (tuple("a" * i for i in range(1, 400)), "a" * 401, ["a" * 399, "aa"]),
    ],
)
def test_the_longest_mark_is_meant(marks: tuple[str, ...], text: str, found: list[str]) -> None:
    assert mark_pattern(frozenset(marks)).findall(text) == found


def test_any_marks_are_found_as_one_by_one() -> None:
    choice = random.Random(1)
    for _ in range(200):
        marks = {"".join(choice.choices("ab<", k=choice.randint(1, 5))) for _ in range(9)}
        text = "".join(choice.choices("ab<", k=80))
        found, at = list[str](), 0
        while at < len(text):
            here = max((mark for mark in marks if text.startswith(mark, at)), key=len, default="")
            found += [here] if here else []
            at += len(here) or 1
        assert mark_pattern(frozenset(marks)).findall(text) == found


@pytest.mark.parametrize("part", ["<", "<｜", "<｜place▁holder▁no▁", "<｜place▁holder▁no▁79", "</"])  # noqa: RUF001
def test_what_only_begins_like_marks_costs_little(part: str) -> None:
    text = part * (1_000_000 // len(part))
    pattern = mark_pattern(MANY)
    began_s = time.process_time()
    assert pattern.search(text) is None
    assert time.process_time() - began_s < 0.6  # tried one by one: 4 s and more
