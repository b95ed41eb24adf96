"""Of a call that breaks, clients have arguments that none of them takes, however lenient it is."""

from __future__ import annotations

import json
from typing import Any

import jiter
import pytest
from call_texts import DSML_PIECES, V31_PIECES, block, invoke, parameter, v31
from hypothesis import given
from hypothesis import strategies as st

from lostwax.server.formats.encoders import Format
from lostwax.server.formats.json_prefix import JsonPrefix
from lostwax.server.formats.message import MessageDelta
from lostwax.server.formats.readers import reader_of

NESTED = '{"a": {"b": ["x\\"\\\\", {"c": [1.5e-3, null]}, [true]]}, "d": "\\u00e9"}'
ANSWERS: dict[str, tuple[Format, str]] = {
    **{f"dsml: {name}": ("deepseekv32", "".join(each)) for name, each in DSML_PIECES.items()},
    **{f"v31: {name}": ("deepseekv31", "".join(each)) for name, each in V31_PIECES.items()},
    "dsml: nested": ("deepseekv32", block(invoke("f", parameter("p", NESTED, False)))),
    "v31: nested": ("deepseekv31", v31("f", NESTED)),
    "twice": ("deepseekv32", block(invoke("f", parameter("a", "/b"), parameter("a", "/c")))),
}


def _completed(text: str) -> Any:
    """As LangChain reads arguments: brackets that are open are closed, and what is no JSON at the
    end is left out; None where a bracket closes another one."""
    made, open_, in_string, is_escaped = list[str](), list[str](), False, False
    for char in text:
        if in_string:
            in_string = char != '"' or is_escaped
            is_escaped = char == "\\" and not is_escaped
        elif char == '"':
            in_string, is_escaped = True, False
        elif char in "{[":
            open_.append("}" if char == "{" else "]")
        elif char in "}]" and (not open_ or open_.pop() != char):
            return None
        made.append(char)
    made += ['"'] if in_string else []
    while made:
        try:
            return json.loads("".join([*made, *reversed(open_)]), strict=False)
        except ValueError:
            made.pop()
    return None


def _require_unread(text: str) -> None:
    assert text, "nothing at all is read as no arguments"
    assert _completed(text) is None, text
    for mode in (True, "trailing-strings"):
        with pytest.raises(ValueError, match=r"."):
            jiter.from_json(text.encode(), partial_mode=mode)


@pytest.mark.parametrize("name", ANSWERS)
def test_arguments_of_a_call_that_breaks_anywhere_are_read_by_nobody(name: str) -> None:
    format, text = ANSWERS[name]
    num_broken = 0
    for end in range(1, len(text) + 1):
        reader, message = reader_of(format, thinks=False), MessageDelta()
        message.extend(reader.push(text[:end]))
        message.extend(reader.finish())
        for call in message.calls:
            if call.index < reader.num_calls:
                assert isinstance(json.loads(call.arguments), dict)
            else:
                num_broken += 1
                assert call.name, "a part of no call"
                _require_unread(call.arguments)
    assert num_broken > 10 or name == "dsml: no call"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(max_size=3), _VALUES), cut=st.integers(0, 60))
def test_a_misfit_ends_any_beginning_of_an_object(value: dict[str, Any], cut: int) -> None:
    beginning = json.dumps(value, ensure_ascii=cut % 2 == 0)[:-1][:cut]
    prefix = JsonPrefix()
    assert prefix.push(beginning) == len(beginning)
    _require_unread(beginning + prefix.misfit())
