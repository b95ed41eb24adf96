"""Follows a grammar for some tokens before anybody does, to see what that takes. Knows no process.

It refuses most of those that are costly with a sentence; what grows costly later meets the alarms
of `allowance.py`.
"""

from __future__ import annotations

import ctypes
import time

import llguidance

from lostwax.server.grammar.allowance import BURST_S, EARNED_S
from lostwax.server.grammar.follower import CannotGoOn, Follower, Rows
from lostwax.server.grammar.grammar import BadGrammar
from lostwax.server.grammar.vocabulary import Vocabulary

_TRIED_TOKENS = 64
"""Of an answer that is made up."""
_STRIDE = 7919


def try_grammar(matcher: llguidance.LLMatcher, vocabulary: Vocabulary) -> None:
    """Raise BadGrammar where some answer's masks take too long, or an answer cannot go on."""
    memory = memoryview(bytearray(4 * -(-vocabulary.vocab_size // 32)))
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    rows = Rows(memory, address, vocabulary.vocab_size)
    follower = Follower(matcher, vocabulary, [vocabulary.eos], None)
    began_s, token = time.process_time(), 0
    for number in range(_TRIED_TOKENS):
        try:
            follower.masks([], rows, 0)
            spent_s = time.process_time() - began_s
            if spent_s > BURST_S + number * EARNED_S:
                raise BadGrammar(
                    f"following it takes {1000 * spent_s / (number + 1):.0f} ms a token, more than"
                    f" {1000 * EARNED_S:g}; make it less ambiguous, or its repetitions smaller"
                )
            token = _next(rows, token, vocabulary)
            if token < 0 and not number:
                raise BadGrammar("no text but the empty one fits it; say what an answer may be")
            if token < 0:
                return
            follower.take([token])
        except CannotGoOn as error:
            raise BadGrammar(str(error)) from error


def _next(rows: Rows, before: int, vocabulary: Vocabulary) -> int:
    """Some token that may come and ends nothing: another one each time. -1 where there is none."""
    allowed = rows.as_number(0) & ~(1 << vocabulary.eos) & ((1 << vocabulary.vocab_size) - 1)
    if not allowed:
        return -1
    first = (before + _STRIDE) % vocabulary.vocab_size
    behind = allowed >> first << first or allowed
    return (behind & -behind).bit_length() - 1
