"""The border where a `tokenizer.json`, which anybody may have written, becomes a codec.

What is wrong with it is said here, not at a request: it is read within bounds, and some texts are
encoded and decoded by both ways. Knows no request.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tokenizers import Tokenizer

from lostwax.ir.contract.foreign_file import BadFile, read_bounded
from lostwax.ir.contract.one_line import one_line
from lostwax.server.formats.pieces import Piece
from lostwax.server.gateway.panics import NoPanic
from lostwax.server.gateway.tokenizer import UNKNOWN, Codec, IdCodec, MarkInText, TextCodec

NAME = "tokenizer.json"
MAX_BYTES = 256 << 20
"""Of a `tokenizer.json`; DeepSeek-V3.2's has 8 MB."""
SAMPLES = ("", "a", "Hello, world!\n", "  17 + 4", "\t", "é 你好 🙂", "x" * 200, "\0", UNKNOWN)
"""Ordinary texts, the shortest, and what a vocabulary may lack."""
REMEDY = "download the checkpoint again, and compile it again"


class BadTokenizer(ValueError):
    """A `tokenizer.json` that cannot be used; the message names it."""


def load_codec(*folders: Path | None) -> Codec:
    """The codec of the first folder that holds a `tokenizer.json`, else ids.

    Raises BadTokenizer where what has that name cannot be used.
    """
    for folder in folders:
        if folder is not None and os.path.lexists(path := folder / NAME):
            return _codec(path, _content(path))
    return IdCodec()


def read_tokenizer(folder: Path) -> bytes | None:
    """A checkpoint's `tokenizer.json` as it stands there, None where nothing has that name.

    Raises BadTokenizer where `load_codec` would.
    """
    if not os.path.lexists(path := folder / NAME):
        return None
    content = _content(path)
    _codec(path, content)
    return content


def _content(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_BYTES)
    except BadFile as error:
        raise BadTokenizer(f"{error}; {REMEDY}") from error


def _codec(path: Path, content: bytes) -> TextCodec:
    try:
        with NoPanic():
            tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library knows no other class
        raise BadTokenizer(f"{path} is no tokenizer ({one_line(error)}); {REMEDY}") from error
    if dropout := getattr(tokenizer.model, "dropout", None):
        raise BadTokenizer(
            f"{path} draws lots: with model.dropout {dropout:.4g} a text has other ids each time;"
            " set it to null"
        )
    try:
        codec = TextCodec(tokenizer)
        for text in SAMPLES:
            _try(codec, text)
    except Exception as error:
        raise BadTokenizer(
            f"{path} fails on ordinary texts ({one_line(error)}); {REMEDY}"
        ) from error
    return codec


def _try(codec: TextCodec, text: str) -> None:
    codec.decode(codec.encode(text))
    codec.decode(codec.encode_rendered(text))
    with suppress(MarkInText):  # an added token may be an ordinary word: then chats cannot hold it
        codec.decode(codec.encode_pieces([Piece(text, is_structure=False)]))
