"""Of several stop strings the first in the text ends it, whatever their order and the cuts."""

from __future__ import annotations

import pytest

from lostwax.server.formats.stop import StopFinder

FOUND: list[tuple[list[str], str, str, str | None]] = [
    (["b", "a"], "xab", "x", "a"),
    (["a", "b"], "xab", "x", "a"),
    (["cd", "abc"], "xabcd", "x", "abc"),
    (["end", "xa"], "xab end", "", "xa"),
    (["aa"], "baaa", "b", "aa"),
    (["ab", "abc"], "xabc", "x", "ab"),
    (["abc", "ab"], "xabc", "x", "ab"),
    (["abc"], "xab", "xab", None),
    (["\n\n", "\n"], "x\n\n", "x", "\n"),
    ([], "xab", "xab", None),
]
"""Stop strings, a text, what is let through of it and which was found."""


@pytest.mark.parametrize(("stops", "text", "shown", "found"), FOUND)
def test_the_first_in_a_text_that_comes_at_once_ends_it(
    stops: list[str], text: str, shown: str, found: str | None
) -> None:
    finder = StopFinder(stops)
    assert finder.push(text) + finder.flush() == shown
    assert finder.stop == found
    assert finder.found == (found is not None)
    if finder.found:
        assert finder.push("more") + finder.flush() == ""


@pytest.mark.parametrize(("stops", "text", "shown", "found"), FOUND)
def test_the_first_in_a_text_of_single_characters_ends_it(
    stops: list[str], text: str, shown: str, found: str | None
) -> None:
    finder = StopFinder(stops)
    assert "".join(map(finder.push, text)) + finder.flush() == shown
    assert finder.stop == found
