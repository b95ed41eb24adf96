"""Text as its tokens come: the same as of the whole, at a cost that does not grow."""

from __future__ import annotations

import pytest
from http_server import small_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st
from scripted_runtime import CODEC, EOS_ID

from lostwax.server.gateway.tokenizer import IncrementalDecoder, TextCodec

BYTE = {CODEC.token_bytes(token): token for token in range(256)}
pieces = st.sampled_from(["é", "你", "🙂", "a", " "]).map(str.encode) | st.binary(max_size=3)


def pushed(tokens: list[int], codec: TextCodec = CODEC) -> str:
    decoder = IncrementalDecoder(codec)
    return "".join(map(decoder.push, tokens)) + decoder.flush()


@given(st.lists(pieces, max_size=40).map(b"".join))
@example(b"\x80" * 15 + "é".encode() + b"x")
@example(b"\xf0\x9f" * 20 + "🙂".encode())
@example(b"\x80" * 14 + "🙂".encode() * 2)
def test_any_bytes_come_as_they_would_of_the_whole(text: bytes) -> None:
    tokens = [BYTE[bytes([byte])] for byte in text]
    assert pushed(tokens) == text.decode(errors="replace") == CODEC.decode(tokens)


@given(st.lists(pieces.filter(lambda p: p.decode(errors="ignore").encode() == p), max_size=9))
def test_silent_tokens_between_any_characters_change_nothing(parts: list[bytes]) -> None:
    tokens: list[int] = []
    for part in parts:
        tokens += [*(BYTE[bytes([byte])] for byte in part), *[EOS_ID] * 20]
    assert pushed(tokens) == b"".join(parts).decode()


class CountingCodec(TextCodec):
    """Notes how many tokens it was asked to decode."""

    num_decoded = 0

    def decode(self, tokens: list[int]) -> str:
        self.num_decoded += len(tokens)
        return super().decode(tokens)


@pytest.mark.parametrize("piece", ["<end>", "Ã", "©", "a"])  # two are half a character
def test_a_model_that_repeats_itself_costs_no_more_for_each_token(piece: str) -> None:
    tokenizer = small_tokenizer()
    token, codec = tokenizer.token_to_id(piece), CountingCodec(tokenizer)
    assert token is not None
    pushed([token] * 2000, codec)
    assert codec.num_decoded < 2000 * 100
