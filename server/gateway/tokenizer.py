"""Text to token ids and back. Knows the `tokenizers` file format; knows no model and no request.

A checkpoint without a tokenizer is served by ids: then a token reads `token_id:N`, and text is
those, one after another, so that offsets into text still hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tokenizers import Tokenizer

from lostwax.server.formats.mark_pattern import mark_pattern
from lostwax.server.formats.pieces import Piece
from lostwax.server.gateway.panics import NoPanic

REPLACEMENT = "\ufffd"
"""What an incomplete UTF-8 sequence decodes to."""
MAX_CHARACTER_BYTES = 4
UNKNOWN = "\U0010fffd"
"""A character for private use, which no vocabulary has."""
MAX_PENDING = 16
"""Tokens that are waited for: without a bound a model that repeats a token without text, or half a
character, costs the square of its answer's length."""


def _byte_characters() -> dict[str, int]:
    """How byte-level vocabularies spell bytes: Latin-1's visible ones as they are, others from
    U+0100 on (GPT-2's `bytes_to_unicode`)."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    spelt = {chr(byte): byte for byte in visible}
    return spelt | {chr(0x100 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_characters()


class MarkInText(ValueError):
    """What a client brought would become a mark; the message names the mark."""


class Codec(Protocol):
    """Text of tokens, and back where there is a tokenizer."""

    @property
    def can_encode(self) -> bool:
        """Whether text prompts can be served."""
        ...

    @property
    def marks(self) -> Mapping[str, int]:
        """Tokens that stand for no text of their own, such as the end of a sentence."""
        ...

    @property
    def longest(self) -> int | None:
        """The most bytes of text that one token stands for; None where that has no bound."""
        ...

    def serialised(self) -> bytes:
        """What `codec_of` makes the same codec of, in another process."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ...

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of a text that holds its marks already: nothing is put around it."""
        ...

    def encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """The ids of a prompt whose marks are those of its structure; nothing is put around it.

        Raises MarkInText where the tokenizer makes a mark of text.
        """
        ...

    def decode(self, tokens: list[int]) -> str:
        """The text of ids, special tokens left out."""
        ...

    def decode_with_marks(self, tokens: list[int]) -> str:
        """The text of ids, special tokens spelt out."""
        ...

    def piece(self, token: int) -> str:
        """One token as a string that names it, also where it is no whole character."""
        ...

    def token_bytes(self, token: int) -> bytes | None:
        """The bytes that a token stands for, None where it stands for none."""
        ...


class IdCodec:
    """Reads tokens as `token_id:N`."""

    can_encode = False
    marks: Mapping[str, int] = {}
    longest = None

    def serialised(self) -> bytes:
        """Nothing: there is no tokenizer."""
        return b""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        raise ValueError("there is no tokenizer")

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of a text."""
        raise ValueError("there is no tokenizer")

    def encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """The ids of a prompt."""
        raise ValueError("there is no tokenizer")

    def decode(self, tokens: list[int]) -> str:
        """The text of ids."""
        return "".join(map(self.piece, tokens))

    def decode_with_marks(self, tokens: list[int]) -> str:
        """The text of ids."""
        return self.decode(tokens)

    def piece(self, token: int) -> str:
        """One token as a string that names it."""
        return f"token_id:{token}"

    def token_bytes(self, token: int) -> bytes | None:
        """Nothing is known of any token."""
        return None


class TextCodec:
    """Reads and writes text with a checkpoint's `tokenizer.json`.

    Takes the tokenizer over: its `truncation` and `padding`, which are settings of a training, are
    switched off. A prompt that does not fit is refused elsewhere, never cut.
    """

    can_encode = True

    @NoPanic()
    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.marks: Mapping[str, int] = {token.content: i for i, token in added.items()}
        self._mark_of = {i: mark for mark, i in self.marks.items()}
        self._speller = _without_marks(tokenizer)
        unknown: list[Any] = tokenizer.model.tokenize(UNKNOWN)
        self._unknown = {token.id for token in unknown}
        self._mark = mark_pattern(frozenset(self.marks))
        self.longest = _longest_bytes(tokenizer)

    def serialised(self) -> bytes:
        """The `tokenizer.json`."""
        return self._tokenizer.to_str().encode()

    @NoPanic()
    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        # A batch of one: `encode` would hold the interpreter while it works.
        return self._tokenizer.encode_batch_fast([text])[0].ids

    @NoPanic()
    def encode_rendered(self, text: str) -> list[int]:
        """The ids of a text that holds its marks already."""
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids

    @NoPanic()
    def encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """The ids of a prompt. What stands between two marks is tokenised as one text."""
        ids, run = list[int](), list[str]()
        for piece in pieces:
            if not (piece.is_structure and self.marks):
                run.append(piece.text)
                continue
            before, *rest = self._mark.split(piece.text)
            run.append(before)
            for mark, text in zip(rest[::2], rest[1::2], strict=True):
                ids += self._spelt("".join(run))
                ids.append(self.marks[mark])
                run = [text]
        return ids + self._spelt("".join(run))

    def _spelt(self, text: str) -> list[int]:
        """The ids of a text in which no mark counts as one."""
        ids = self._speller.encode_batch_fast([text], add_special_tokens=False)[0].ids
        for token in self._mark_of.keys() & ids:
            # The model's own vocabulary may hold it as a word, which a normalizer finds in other
            # spellings, too. What is unknown to the model may become a mark that means just that.
            if (mark := self._mark_of[token]) in text or token not in self._unknown:
                raise MarkInText(f"this tokenizer has no other way to write {mark!r} than its mark")
        return ids

    @NoPanic()
    def decode(self, tokens: list[int]) -> str:
        """The text of ids."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    @NoPanic()
    def decode_with_marks(self, tokens: list[int]) -> str:
        """The text of ids, special tokens spelt out."""
        return self._tokenizer.decode(tokens, skip_special_tokens=False)

    @NoPanic()
    def piece(self, token: int) -> str:
        """One token as a string that names it."""
        text = self._tokenizer.decode([token], skip_special_tokens=False)
        if text and REPLACEMENT not in text:
            return text
        return f"token_id:{token}"

    def token_bytes(self, token: int) -> bytes | None:
        """The bytes that a token stands for."""
        text = self._tokenizer.id_to_token(token)
        if text is None or text in self.marks:
            return None if text is None else text.encode()
        if not _BYTES.keys() >= set(text):
            return None  # no byte-level vocabulary
        return bytes(_BYTES[character] for character in text)


def _without_marks(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer with the same (shared) vocabulary that finds no marks in a text."""
    made = Tokenizer(tokenizer.model)
    if tokenizer.normalizer is not None:
        made.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        made.pre_tokenizer = tokenizer.pre_tokenizer
    return made


class IncrementalDecoder:
    """Text of a growing token list, never half a character."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._tokens: list[int] = []
        self._start = 0
        self._read = 0

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        self._tokens.append(token)
        before, text = self._window()
        if text.endswith(REPLACEMENT) or len(text) <= len(before):
            return self._give_up(before, text) if self._num_pending == MAX_PENDING else ""
        return self._emit(before, text, len(self._tokens))

    def flush(self) -> str:
        """What is left at the end, incomplete characters as U+FFFD."""
        before, text = self._window()
        self._read = len(self._tokens)
        return text[len(before) :]

    @property
    def _num_pending(self) -> int:
        return len(self._tokens) - self._read

    def _emit(self, before: str, text: str, read: int) -> str:
        # The window keeps one emitted step, because a token's text may depend on its neighbour.
        self._start, self._read = self._read, read
        return text[len(before) :]

    def _give_up(self, before: str, text: str) -> str:
        """The text of pending tokens that no token behind them can complete."""
        if text == before:
            del self._tokens[self._read :]
            return ""
        end = len(self._tokens)
        for read in range(end - 1, end - 1 - MAX_CHARACTER_BYTES, -1):
            whole = self._codec.decode(self._tokens[self._start : read])
            if whole + self._codec.decode(self._tokens[read:]) == text:
                return self._emit(before, whole, read)
        return self._emit(before, text, end)

    def _window(self) -> tuple[str, str]:
        before = self._codec.decode(self._tokens[self._start : self._read])
        return before, self._codec.decode(self._tokens[self._start :])


def _longest_bytes(tokenizer: Tokenizer) -> int | None:
    """Bytes of the longest token, where every byte of a text is in some token: a byte-level
    vocabulary with all bytes, no normalizer, and no added token that takes in what is beside it."""
    vocab = tokenizer.get_vocab(with_added_tokens=False)
    added = tokenizer.get_added_tokens_decoder().values()
    is_plain = str(tokenizer.normalizer) in ("None", "Sequence(normalizers=[])")
    if not is_plain or not _BYTES.keys() <= vocab.keys():
        return None
    if "ByteLevel(" not in str(tokenizer.pre_tokenizer) or any(a.lstrip or a.rstrip for a in added):
        return None
    # One character a byte; the bytes of UTF-8 where a token is spelt in another way.
    pieces = [len(piece) if _BYTES.keys() >= set(piece) else len(piece.encode()) for piece in vocab]
    return max(pieces + [len(token.content.encode()) for token in added])


def codec_of(serialised: bytes) -> Codec:
    """The codec that `Codec.serialised` was asked for."""
    return TextCodec(Tokenizer.from_str(serialised.decode())) if serialised else IdCodec()
