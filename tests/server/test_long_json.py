"""A list that is made piece by piece is the list that is made at once."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lostwax.server.gateway.long_json import long_list

values = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text()


@given(st.lists(values | st.dictionaries(st.text(), values) | st.lists(values)))
def test_pieces_make_the_same_json(items: list[Any]) -> None:
    made = msgspec.json.encode({"a": long_list(iter(items))})
    assert made == msgspec.json.encode({"a": items})
