"""Text to token ids and back. Knows the `tokenizers` file format; knows no model and no request.

A checkpoint without a tokenizer is served by ids: then a token reads `token_id:N`, and text is
those, one after another, so that offsets into text still hold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from lostwax.ir.contract.foreign_file import BadFile, read_bounded
from lostwax.ir.contract.one_line import one_line

REPLACEMENT = "\ufffd"
"""What an incomplete UTF-8 sequence decodes to."""
MAX_CHARACTER_BYTES = 4
MAX_BYTES = 256 << 20
"""Of a `tokenizer.json`; DeepSeek-V3.2's has 8 MB."""
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


class BadTokenizer(ValueError):
    """A `tokenizer.json` that cannot be read; the message names it."""


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

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ...

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of a text that holds its marks already: nothing is put around it."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """The text of ids, special tokens left out."""
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

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        raise ValueError("there is no tokenizer")

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of a text."""
        raise ValueError("there is no tokenizer")

    def decode(self, tokens: list[int]) -> str:
        """The text of ids."""
        return "".join(map(self.piece, tokens))

    def piece(self, token: int) -> str:
        """One token as a string that names it."""
        return f"token_id:{token}"

    def token_bytes(self, token: int) -> bytes | None:
        """Nothing is known of any token."""
        return None


class TextCodec:
    """Reads and writes text with a checkpoint's `tokenizer.json`."""

    can_encode = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.marks: Mapping[str, int] = {token.content: i for i, token in added.items()}

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self._tokenizer.encode(text).ids

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of a text that holds its marks already."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: list[int]) -> str:
        """The text of ids."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

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


def load_codec(*folders: Path | None) -> Codec:
    """The codec of the first folder that holds a `tokenizer.json`, else ids.

    Raises BadTokenizer where a file of that name is none.
    """
    for folder in folders:
        if folder is not None and os.path.lexists(path := folder / "tokenizer.json"):
            return TextCodec(_read_tokenizer(path))
    return IdCodec()


def _read_tokenizer(path: Path) -> Tokenizer:
    remedy = "recompile the artifact, or download the checkpoint again"
    try:
        content = read_bounded(path, MAX_BYTES)
    except BadFile as error:
        raise BadTokenizer(f"{error}; {remedy}") from error
    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:  # the library knows no other class
        raise BadTokenizer(f"{path} is no tokenizer ({one_line(str(error))}); {remedy}") from error
