"""What an answer holds does not depend on how its text is cut: every cut, and very many."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import pytest
from call_texts import (
    DSML_PIECES,
    REASONING_PIECES,
    V31_PIECES,
    block,
    invoke,
    outcome,
    parameter,
    v31,
)

from lostwax.server.formats.encoders import Format
from lostwax.server.formats.encoding_v31 import CALL_END, CALLS, CALLS_END
from lostwax.server.formats.encoding_v32 import DSML
from lostwax.server.formats.message import MessageDelta, MessageReader
from lostwax.server.formats.readers import reader_of

TOOLS = [
    {"name": name, "parameters": {"properties": {"a": {"type": "integer"}}}} for name in ("f", "g")
]
Case = tuple[Format, bool, bool, list[str]]
"""Format, whether the prompt ended in reasoning, `coerce`, the answer in pieces."""
CASES: dict[str, Case] = {
    **{f"dsml: {name}": ("deepseekv32", False, False, p) for name, p in DSML_PIECES.items()},
    **{f"coerced: {name}": ("deepseekv32", False, True, p) for name, p in DSML_PIECES.items()},
    **{f"v31: {name}": ("deepseekv31", False, False, p) for name, p in V31_PIECES.items()},
    **{f"reasoning: {name}": ("deepseekv32", True, False, p)
       for name, p in REASONING_PIECES.items()},
    **{f"only: {name}": ("none", True, False, p) for name, p in REASONING_PIECES.items()},
}  # fmt: skip
QUICK = 11
"""Pieces of which all cuts are tried at every change."""
NUM_LONG = 1_000_000
"""Cuts of the long texts of each format."""
ODD = f"</{DSML[:3]}>"
LONG: dict[str, tuple[Format, str]] = {
    "dsml": (
        "deepseekv32",
        "so <think\n</think>Well:\n\nfirst" + block(
            invoke("f", parameter("a", 'x\n"\\' * 9 + ODD), parameter("b", "[0.5, {}]", False)),
            invoke("g", parameter("c", '{"deep": [[[["é🙂", null]]]], "n": -1.5e-7}', False)),
            invoke("g"),
        ) + "\n \nand so on",
    ),
    "dsml, broken": (
        "deepseekv32",
        "</think>" + block(
            invoke("f", parameter("a", "1")), invoke("g", parameter("c", "[1 2]", False))
        ) + block(invoke("f")),
    ),
    "v31": (
        "deepseekv31",
        f"so</think>Well:{CALLS}" + v31("f", f'{{"a": "{CALL_END}", "b": [1, 2.5]}}')
        + v31("g", "{}") + v31("f", '{"é": "\\ud83d\\ude42"}')
        + f"{CALLS_END}\n{CALLS}" + v31("g", "{]}"),
    ),
}  # fmt: skip


def reader(case: Case) -> MessageReader:
    format, thinks, coerce, _ = case
    return reader_of(format, thinks=thinks, tools=TOOLS if coerce else None, coerce=coerce)


def cuts(pieces: Sequence[str]) -> Iterator[list[str]]:
    """Every way to cut a text at the borders of its pieces."""
    for places in range(1 << (len(pieces) - 1)):
        parts = [pieces[0]]
        for number, piece in enumerate(pieces[1:]):
            if places >> number & 1:
                parts.append(piece)
            else:
                parts[-1] += piece
        yield parts


def merged(pieces: Sequence[str], count: int) -> list[str]:
    """The same text in as many pieces, longer ones at its end."""
    return [*pieces[: count - 1], "".join(pieces[count - 1 :])]


@pytest.mark.parametrize("name", CASES)
def test_the_texts_are_of_sixteen_pieces_at_most(name: str) -> None:
    assert QUICK <= len(CASES[name][3]) <= 16


@pytest.mark.parametrize("name", CASES)
def test_every_cut_of_the_first_pieces_gives_the_same(name: str) -> None:
    case = CASES[name]
    text = "".join(case[3])
    expected = outcome(reader(case), [text])
    for parts in cuts(merged(case[3], QUICK)):
        assert outcome(reader(case), parts) == expected, parts


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_cut_gives_the_same(name: str) -> None:
    """Two to the fifteenth of them."""
    case = CASES[name]
    expected = outcome(reader(case), ["".join(case[3])])
    for parts in cuts(case[3]):
        assert outcome(reader(case), parts) == expected, parts


@pytest.mark.parametrize("name", CASES)
def test_what_was_given_follows_from_the_text_so_far(name: str) -> None:
    """After any beginning of the text: in one piece, or character by character."""
    case = CASES[name]
    text = "".join(case[3])
    slow, given = reader(case), MessageDelta()
    for end in range(1, len(text) + 1):
        given.extend(slow.push(text[end - 1]))
        at_once = reader(case)
        assert at_once.push(text[:end]) == given, text[:end]
        seen = slow.num_calls, slow.broken, slow.in_reasoning, slow.reasoning_end
        assert seen == (
            at_once.num_calls, at_once.broken, at_once.in_reasoning, at_once.reasoning_end,
        )  # fmt: skip


def random_cuts(text: str, chance: random.Random) -> list[str]:
    count = chance.randrange(1, 9)
    places = sorted(chance.choices(range(len(text) + 1), k=count))
    return [text[a:b] for a, b in pairwise((0, *places, len(text)))]


@pytest.mark.parametrize("all", [300, pytest.param(NUM_LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LONG)
def test_random_cuts_of_long_answers_give_the_same(name: str, all: int) -> None:
    format, text = LONG[name]
    times = all // sum(other == format for other, _ in LONG.values())
    expected = outcome(reader_of(format, thinks=True), [text])
    chance = random.Random(15)
    for _ in range(times):
        parts = random_cuts(text, chance)
        assert outcome(reader_of(format, thinks=True), parts) == expected, parts


def test_the_random_cuts_are_of_the_whole_text() -> None:
    chance, text = random.Random(1), "0123456789"
    drawn = [random_cuts(text, chance) for _ in range(200)]
    assert {"".join(parts) for parts in drawn} == {text}
    borders = {end for parts in drawn for end in accumulate(map(len, parts))}
    assert borders == set(range(11))
