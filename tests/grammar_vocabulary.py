"""A vocabulary for grammars over the fake runtime, and what an answer under one must be there.

The oracle asks the library itself, token by token, without processes, drafts or steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import llguidance
import numpy as np
from fake_runtime import EOS, VOCAB, logprobs_after, pick
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from lostwax.ir.contract.masks import num_masks
from lostwax.server.engine.runtime import Limits
from lostwax.server.gateway.tokenizer import TextCodec
from lostwax.server.grammar.compile_grammar import compile_grammar
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammar_process import Log
from lostwax.server.grammar.grammars import Grammars
from lostwax.server.grammar.vocabulary import Vocabulary

SINGLE = '{}[]":,0123456789abcdefghijklmnorstuxy-</>'
PAIRS = ("ab", "cd", "12", '":', "th", "in", "</")
THINK, THINK_END = 58, 59


def tokenizer() -> Tokenizer:
    """61 tokens: characters, a blank, pairs, some that no text needs, and three marks."""
    words = [*SINGLE, "Ġ", *PAIRS]
    words += [f"z{i}" for i in range(THINK - len(words))]
    vocab = {word: i for i, word in enumerate(words)}
    made = Tokenizer(BPE(vocab, [(pair[0], pair[1]) for pair in PAIRS]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    made.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    made.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    made.add_special_tokens([AddedToken("<end>", special=True)])
    assert made.token_to_id("<end>") == EOS == VOCAB - 1
    assert made.token_to_id("</think>") == THINK_END
    return made


CODEC = TextCodec(tokenizer())


def raise_it(what: str, error: BaseException) -> None:
    """What is told of a fault that no test expects."""
    raise AssertionError(what) from error


def grammars_of(folder: Path, limits: Limits, hang_s: float = 5.0, log: Log = raise_it) -> Grammars:
    """Who follows grammars for an engine over the fake runtime; stop it."""
    tokenizer().save(str(folder / "tokenizer.json"))
    most = num_masks(limits.max_reqs, limits.max_drafts)
    return Grammars([folder], VOCAB, EOS, most, log=log, hang_s=hang_s)


class Oracle:
    """What answers are, by the library alone."""

    def __init__(self) -> None:
        self._vocabulary = Vocabulary(CODEC, VOCAB, EOS)

    def answer(
        self, prompt: Sequence[int], grammar: Grammar, count: int, *, after: int | None = None
    ) -> list[int]:
        """Greedy tokens behind a prompt, the end included."""
        matcher = compile_grammar(grammar, self._vocabulary)
        tokens = list(prompt)
        waits = after is not None
        while len(tokens) < len(prompt) + count:
            among = list(range(EOS)) if waits else self._allowed(matcher)
            token = pick(logprobs_after(tokens), 0.0, 0, 0, among=among)
            tokens.append(token)
            if token == EOS:
                break
            if waits:
                waits = token != after
            else:
                assert matcher.consume_token(token)
        return tokens[len(prompt) :]

    def _allowed(self, matcher: llguidance.LLMatcher) -> list[int]:
        mask = allocate_token_bitmask(1, VOCAB)
        fill_next_token_bitmask(matcher, mask)
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[:VOCAB]
        bits[EOS] = matcher.is_accepting()
        return np.flatnonzero(bits).tolist()
