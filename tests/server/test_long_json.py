"""JSON that is made in parts is the JSON that is made at once."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lostwax.server.gateway.long_json import SLICE_ITEMS, encode_long

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(values, st.integers(0, 2 * SLICE_ITEMS + 1))
def test_parts_make_the_same_json(value: Any, count: int) -> None:
    for whole in (value, {"a": [{"b": [value] * count, "c": value}]}, [{"a": value}, value]):
        assert encode_long(whole) == msgspec.json.encode(whole)
