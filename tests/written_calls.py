"""Answers with calls as V3.2's encoder writes them, and whether they follow a grammar, over the
trained model's vocabulary. Knows no test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer
from trained_fixtures import TRAINED

from lostwax.server.formats.encoding_v32 import EOS, THINK_END, encode_messages
from lostwax.server.formats.pieces import Piece
from lostwax.server.gateway.tokenizer import TextCodec
from lostwax.server.grammar.compile_grammar import compile_grammar
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.vocabulary import Vocabulary

CODEC = TextCodec(Tokenizer.from_file(str(TRAINED / "tokenizer.json")))
VOCABULARY = Vocabulary(CODEC, 4096, CODEC.marks[EOS])


def written(*calls: tuple[str, Mapping[str, Any]], content: str = "") -> str:
    """An answer as the model's encoder writes it."""
    made = [{"function": {"name": name, "arguments": args}} for name, args in calls]
    answer = {"role": "assistant", "content": content, "tool_calls": made}
    text = encode_messages([{"role": "user", "content": "?"}, answer], "chat")
    return text.partition(THINK_END)[2].removesuffix(EOS)


def fits(grammar: Grammar | None, text: str) -> bool:
    """Whether a whole answer follows a grammar."""
    assert grammar is not None
    grammar.require_small()
    matcher = compile_grammar(grammar, VOCABULARY)
    ids = CODEC.encode_pieces([Piece(text, is_structure=False)])
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()
