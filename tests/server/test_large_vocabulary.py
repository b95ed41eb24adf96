"""What grammars cost: an answer where tokens are many, and a process that nobody needs."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from fake_runtime import EOS, FakeLimits
from grammar_vocabulary import CODEC, grammars_of
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from lostwax.server.gateway.tokenizer import TextCodec
from lostwax.server.grammar.compile_grammar import compile_grammar
from lostwax.server.grammar.follower import Follower
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammars import Wanted
from lostwax.server.grammar.vocabulary import Vocabulary

NUM_TOKENS = 32_000
TIMES = 10
"""A look at all tokens for each answer took some 300 times as long, at 32,000 of them."""
GROWS = Grammar("regex", "(a|b)*a(a|b){14}")
"""Its automaton has 2^15 states, made as answers come to them."""


def _tokenizer() -> Tokenizer:
    chance = random.Random(0)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = dict.fromkeys(letters)
    while len(words) < NUM_TOKENS - 3:
        words["".join(chance.choices(letters, k=chance.randrange(3, 9)))] = None
    made = Tokenizer(BPE({word: token for token, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    made.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    made.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    made.add_special_tokens([AddedToken("<end>", special=True)])
    return made


def test_a_thinking_answer_begins_as_quickly_as_a_plain_one() -> None:
    codec = TextCodec(_tokenizer())
    vocabulary = Vocabulary(codec, NUM_TOKENS, codec.marks["<end>"])
    matcher = compile_grammar(Grammar("json_object"), vocabulary)

    def seconds(after: int | None) -> float:
        began = time.process_time()
        for _ in range(20):
            Follower(matcher.deep_copy(), vocabulary, [vocabulary.eos], after)
        return time.process_time() - began

    plain, thinking = (
        min(seconds(after) for _ in range(3)) for after in (None, codec.marks["</think>"])
    )
    assert thinking < TIMES * plain, f"{thinking / plain:.0f} times as long"


def test_a_process_that_nobody_needs_is_kept_by_what_it_has_grown_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammars = grammars_of(tmp_path, FakeLimits())
    try:
        process = grammars.want(GROWS)
        while not process.is_ready:
            grammars.look(0.05)
        before = process.num_bytes
        letters, chance = [CODEC.encode(each)[0] for each in "ab"], random.Random(0)
        wanted = Wanted(process, process.open((EOS,), None), [], [], 0)
        for _ in range(2000):
            grammars.masks([wanted], 1)
            assert wanted.fault is None
            wanted.tokens = [chance.choice(letters)]
        process.close(wanted.number)
        process.leave()
        until = time.monotonic() + 10
        while process.num_bytes == before:
            assert time.monotonic() < until, "it has not said what it holds"
            grammars.drop_idle()
        assert process.num_bytes > before
        monkeypatch.setattr("lostwax.server.grammar.grammars.MAX_IDLE_BYTES", before)
        grammars.drop_idle()
        with pytest.raises(KeyError):
            grammars.process(GROWS)
    finally:
        grammars.stop()
