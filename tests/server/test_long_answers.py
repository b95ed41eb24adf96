"""An answer that comes in many parts costs its length, and not the square of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from lostwax.server.formats.message import CallDelta, MessageDelta
from lostwax.server.gateway.chat_reader import ChatDelta
from lostwax.server.gateway.transcript import Delta

SHORT, LONG = 1_000, 2_000_000
NUM_PARTS = 300
MORE_THAN = 10
"""A part copied each time took 100 times as long behind the long text."""


def _call(text: str) -> list[CallDelta]:
    return [CallDelta(0, "f", text)]


DELTAS: dict[str, Callable[[str], Any]] = {
    "content of a chat": lambda text: ChatDelta(content=text),
    "reasoning of a chat": lambda text: ChatDelta(reasoning=text),
    "arguments of a chat": lambda text: ChatDelta(calls=_call(text)),
    "a completion": lambda text: Delta(text=text),
    "content": lambda text: MessageDelta(content=text),
    "reasoning": lambda text: MessageDelta(reasoning=text),
    "arguments": lambda text: MessageDelta(calls=_call(text)),
}


def _seconds(made: Callable[[str], Any], num_chars: int) -> float:
    whole, part = made(""), made("中文")
    whole.extend(made("中" * num_chars))
    began = time.process_time()
    for _ in range(NUM_PARTS):
        whole.extend(part)
    return time.process_time() - began


@pytest.mark.parametrize("name", DELTAS)
def test_a_part_costs_the_same_whatever_came_before(name: str) -> None:
    short, long = (min(_seconds(DELTAS[name], n) for _ in range(5)) for n in (SHORT, LONG))
    assert long < MORE_THAN * short, f"{long / short:.0f} times as long"
