"""The tokens of a model as a grammar sees them: bytes, or marks that are no text. Knows no grammar.

Marks (added tokens: turns, `<think>`, the end) are never text of an answer that follows a grammar,
even where their spelling would fit: clients do not see some of them, and readers take others for
structure. The one exception is DSML's mark where it is a token: calls are written with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import llguidance

from lostwax.server.formats.encoding_v32 import DSML, THINK_END
from lostwax.server.formats.pieces import Piece
from lostwax.server.gateway.tokenizer import Codec, MarkInText


class NoVocabulary(ValueError):
    """The tokenizer does not say which bytes its tokens stand for."""


class Vocabulary:
    """`vocab_size` ids of which a codec names the first; `eos` is any token that ends answers.

    It holds `llguidance`'s own form of itself, which takes a second for 129,280 tokens.
    """

    def __init__(self, codec: Codec, vocab_size: int, eos: int) -> None:
        self.vocab_size = vocab_size
        self.eos = eos
        self._codec = codec
        found = [codec.token_bytes(token) for token in range(vocab_size)]
        if all(each is None for each in found):
            raise NoVocabulary(
                "the tokenizer has no byte-level vocabulary, which grammars need; leave the"
                " grammar out"
            )
        self.bytes_of: Sequence[bytes] = [each or b"" for each in found]
        self._has_dsml = codec.marks.get(DSML, vocab_size) < vocab_size
        marks = {i for mark, i in codec.marks.items() if mark != DSML and i < vocab_size}
        self._by_bytes = sorted(
            (text, token) for token, text in enumerate(self.bytes_of) if text and token not in marks
        )
        close = THINK_END.encode()
        self.closing = [token for text, token in self._by_bytes if close in text]
        """The tokens whose text spells the end of reasoning: looked for once, before any answer."""
        self._single = {text[0]: token for text, token in self._by_bytes if len(text) == 1}
        wrapper = llguidance.TokenizerWrapper(_Spoken(self, sorted(marks | {eos})))
        self.tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=vocab_size, eos_token=eos)

    def beginning_with(self, prefix: bytes) -> list[int]:
        """The tokens whose text begins so."""
        found: list[int] = []
        first = bisect_left(self._by_bytes, (prefix, -1))
        for number in range(first, len(self._by_bytes)):  # a slice would copy most of them
            text, token = self._by_bytes[number]
            if not text.startswith(prefix):
                break
            found.append(token)
        return found

    def spelt(self, text: bytes) -> list[int]:
        """The ids of a text, none of which is a mark but DSML's where it is a token: so a prompt
        has calls, and so must those be written of which a grammar leaves no choice."""
        try:
            around = text.decode().split(DSML) if self._has_dsml else [text.decode()]
            parts = [Piece(part, is_structure=False) for part in around]
            pieces = [piece for part in parts for piece in (Piece(DSML, is_structure=True), part)]
            return self._codec.encode_pieces(pieces[1:])
        except (MarkInText, UnicodeDecodeError):
            return [self._single[byte] for byte in text if byte in self._single]


class _Spoken:
    """A vocabulary as `llguidance` asks for it."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, marks: list[int]) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.eos
        self.tokens = vocabulary.bytes_of
        self.special_token_ids = marks

    def __call__(self, text: bytes) -> list[int]:
        return self._vocabulary.spelt(text)
