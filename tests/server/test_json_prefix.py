"""What may begin a JSON value is passed; the first character that cannot is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lostwax.server.formats.json_prefix import JsonPrefix

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)
indents = st.sampled_from([None, 0, 2])


@given(value=values, indent=indents, ascii=st.booleans(), cut=st.integers(0, 50))
def test_all_of_a_value_is_passed(value: object, indent: int | None, ascii: bool, cut: int) -> None:
    text = f"\t{json.dumps(value, ensure_ascii=ascii, indent=indent)} \r\n"
    prefix = JsonPrefix()
    assert prefix.push(text[:cut]) == len(text[:cut])
    assert prefix.push(text, min(cut, len(text))) == len(text)


@given(text=st.text('{}[]",:\\ u0019.eE+-truefalsn', max_size=9))
def test_what_is_passed_can_be_completed_and_what_is_not_cannot(text: str) -> None:
    """Every passed text has an end that makes it whole; one more character has none."""
    end = JsonPrefix().push(text)
    assert _completion(text[:end]) is not None
    if end < len(text):
        assert _completion(text[: end + 1]) is None


REFUSED = {
    "}": 0, "]": 0, ",": 0, ":": 0, "'": 0, "x": 0, "+1": 0, ".5": 0, "NaN": 0, "Infinity": 0,
    "00": 1, "1. ": 2, "[1.]": 3, '"\\u123"': 6, '{"a":1,2': 7,
    "01": 1, "-x": 1, "1.x": 2, "1.": 2, "1e+": 3, "1.2.3": 3, "1e5.": 3, "1e5e": 3, "--1": 1,
    "1ee": 2, "tru e": 3, "nul1": 3, "falsy": 4, '"\n"': 1, '"\\x': 2, '"\\u12g': 5, "[,": 1,
    "1EE": 2, "1E+5E": 4, "1E5.": 3, "0Ex": 2, "1.5E-x": 5, "[-0E1E": 5,
    "[1,]": 3, "[1 2": 3, "[}": 1, "{]": 1, "{1": 1, '{"a"}': 4, '{"a" 1': 5, '{"a":}': 5,
    '{"a":1,}': 7, '{"a":1]': 6, "[1}": 2, "{,": 1, '{"a":1:': 6, "1 1": 2, "{} {": 3, '"a""': 3,
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_the_first_wrong_character_is_named(text: str) -> None:
    assert JsonPrefix().push(text) == REFUSED[text]


def test_the_end_of_the_outermost_value_is_told_in_the_text_that_has_it() -> None:
    prefix = JsonPrefix()
    assert prefix.push('{"a": [{}]') == 10
    assert prefix.closed_at is None
    assert prefix.push("x }  ", 1) == 5
    assert prefix.closed_at == 3
    assert prefix.push(" ") == 1
    assert prefix.closed_at is None


ENDS = ("", "0", '"', '":0', ":0", "ull", "ll", "l", "rue", "ue", "e", "alse", "lse", "se", "0000",
        "000", "00", '\\"', "n")  # fmt: skip


def _completion(text: str) -> str | None:
    """What makes a beginning whole, by trying: the rest of a token, then what closes the rest."""
    for token in ENDS:
        for again in ("", '"', '":0', '0"', '0":0'):
            closed = text + token + again
            for closers in _closers(closed):
                if _is_json(closed + closers):
                    return closed + closers
    return None


def _closers(text: str) -> list[str]:
    """Ends for what is open, with and without an element that is missing yet."""
    open_, in_string, escaped = list[str](), False, False
    for char in text:
        if in_string:
            in_string, escaped = not (char == '"' and not escaped), char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "{[":
            open_.append("}" if char == "{" else "]")
        elif char in "}]" and open_:
            open_.pop()
    rest = "".join(reversed(open_))
    return [rest, f"0{rest}", f'"":0{rest}']


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)
