"""A text is refused before it is tokenised whole, and only where it does not fit."""

from __future__ import annotations

import pytest
from http_server import small_codec
from scripted_runtime import CODEC
from tokenizers import Tokenizer
from tokenizers.normalizers import NFKC
from trained_fixtures import TRAINED

from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.fitting import SLICE_CHARS, require_fitting
from lostwax.server.gateway.tokenizer import TextCodec
from lostwax.server.gateway.tokenizer_file import load_codec

TINY = load_codec(TRAINED)


class CountingCodec(TextCodec):
    """Notes how many characters it was asked to encode."""

    num_chars = 0

    def encode_rendered(self, text: str) -> list[int]:
        self.num_chars += len(text)
        return super().encode_rendered(text)


def _tiny() -> Tokenizer:
    return Tokenizer.from_file(str(TRAINED / "tokenizer.json"))


def test_the_longest_token_is_known_where_no_byte_can_be_lost() -> None:
    assert CODEC.longest == max(len(mark.encode()) for mark in CODEC.marks)
    assert TINY.longest == max(len(TINY.token_bytes(i) or b"") for i in range(4096))
    assert small_codec().longest is None, "a character outside its alphabet is no token"
    normalising = _tiny()
    normalising.normalizer = NFKC()  # pyright: ignore[reportAttributeAccessIssue]
    assert TextCodec(normalising).longest is None


def test_a_text_longer_than_a_context_of_the_longest_tokens_is_not_tokenised() -> None:
    codec = CountingCodec(_tiny())
    assert codec.longest is not None
    with pytest.raises(ApiError, match="bytes of text") as refused:
        require_fitting("é" * (codec.longest * 2048 + 1), 4096, codec, "prompt")
    assert refused.value.code == "context_length_exceeded"
    assert codec.num_chars == 0


def test_a_text_that_may_fit_is_counted_no_further_than_needed() -> None:
    codec = CountingCodec(_tiny())
    with pytest.raises(ApiError, match="more than 65536 tokens") as refused:
        require_fitting(" " * 400_000, 52_000, codec, "messages")
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    assert codec.num_chars == SLICE_CHARS


@pytest.mark.parametrize(
    "unit", [" ", "\n", "Hello there, all of you! ", "é", "🙂", "1", "<think>"]
)
def test_what_fits_is_never_refused(unit: str) -> None:
    text = (unit * 200_000)[:200_000]
    require_fitting(text, len(TINY.encode_rendered(text)), TINY, "prompt")


def test_a_text_of_a_context_of_the_longest_tokens_is_tokenised() -> None:
    """It may fit; this one's tokens, which are shorter, are counted."""
    codec = CountingCodec(_tiny())
    assert codec.longest is not None
    with pytest.raises(ApiError, match=r"more than \d+ tokens"):
        require_fitting("é" * (codec.longest * 2048), 4096, codec, "prompt")
    assert codec.num_chars > 0
