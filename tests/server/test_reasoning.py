"""What is reasoning and what content does not depend on where the text or its tokens are split."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted_runtime import CODEC, EOS_ID, spelt

from lostwax.server.engine.messages import Output, TokenScore
from lostwax.server.formats.encoding_v32 import EOS, THINK, THINK_END, USER
from lostwax.server.formats.reasoning import ReasoningSplitter
from lostwax.server.gateway.chat_reader import ChatDelta, ChatReader
from lostwax.server.gateway.prepared import AnswerOptions, ChatTurn

SILENT = frozenset({EOS_ID, CODEC.marks[USER]})
PIECES = (THINK, THINK_END, "<", "</", "think", ">", "<<", "/think>", "é", "so", " ", "\n\n")
answers = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def whole(text: str, opened: bool) -> tuple[str, str]:
    """The rules on a text that is known whole."""
    if text.startswith(THINK):
        text, opened = text.removeprefix(THINK), True
    reasoning, _, content = text.partition(THINK_END)
    return (reasoning, content) if opened else ("", text)


def split(pieces: list[str], opened: bool) -> tuple[str, str]:
    splitter = ReasoningSplitter(opened)
    parts = [*(splitter.push(piece) for piece in pieces), splitter.flush()]
    return "".join(r for r, _ in parts), "".join(c for _, c in parts)


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize(
    "text", ["a</think>b", "<think>a</think>b", "<thin</think", "</think></think>", "", "x<y"]
)
def test_every_two_cuts_give_the_same(text: str, opened: bool) -> None:
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            pieces = [text[:first], text[first:second], text[second:]]
            assert split(pieces, opened) == whole(text, opened)


@given(text=answers, opened=st.booleans(), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_any_cuts_of_any_answer_give_the_same(text: str, opened: bool, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert split(pieces, opened) == whole(text, opened)
    assert split(list(text), opened) == whole(text, opened)


@given(text=answers, data=st.data())
@example(text="so</think>yes", data=None)
def test_tokens_and_steps_do_not_matter_and_no_mark_leaks(
    text: str, data: st.DataObject | None
) -> None:
    """Marks as tokens or spelt, steps of any number of tokens, silent marks between any two."""
    tokens = spelt(text) if data is None or data.draw(st.booleans()) else CODEC.encode(text)
    if data is not None:
        for at in sorted(data.draw(st.sets(st.integers(0, len(tokens)), max_size=3)), reverse=True):
            tokens = [*tokens[:at], data.draw(st.sampled_from(sorted(SILENT))), *tokens[at:]]
    sizes = [1] * len(tokens) if data is None else data.draw(st.lists(st.integers(1, 4)))
    reader = ChatReader(AnswerOptions(), ChatTurn(thinks=True, silent=SILENT), CODEC)
    answer = ChatDelta()
    for step in _steps(tokens, sizes):
        answer.extend(reader.feed(step))
    assert (answer.reasoning, answer.content) == whole(text, opened=True)
    assert answer.finish == "stop"
    assert reader.num_output == len(tokens)
    assert reader.in_reasoning == (THINK_END not in text.removeprefix(THINK))
    assert EOS not in answer.content + answer.reasoning


def _steps(tokens: list[int], sizes: list[int]) -> list[Output]:
    steps: list[Output] = []
    for size in [*sizes, len(tokens)]:
        taken, tokens = tokens[:size], tokens[size:]
        scores = [TokenScore(token, 0.0) for token in taken]
        steps.append(Output(request="", tokens=scores))
    return [*steps, Output(request="", finish="stop")]
