"""A `tokenizer.json` of anybody's: no prompt is cut, and what fails does so before any request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from http_server import small_tokenizer
from tokenizers.pre_tokenizers import FixedLength

from lostwax.server.formats.pieces import Piece
from lostwax.server.gateway.panics import NoPanic, TokenizerPanic
from lostwax.server.gateway.tokenizer import TextCodec, codec_of
from lostwax.server.gateway.tokenizer_file import BadTokenizer, load_codec, read_tokenizer

TEXT = "abc abc abc"


def write(folder: Path, **changes: Any) -> Path:
    """A tokenizer of single characters, with other top-level fields."""
    made = json.loads(small_tokenizer().to_str()) | changes
    (folder / "tokenizer.json").write_text(json.dumps(made))
    return folder


def model(**changes: Any) -> dict[str, Any]:
    return {"model": json.loads(small_tokenizer().to_str())["model"] | changes}


TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 4096},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "!",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"truncation": TRUNCATION},
        {"truncation": TRUNCATION | {"max_length": 2, "stride": 5}},
        {"padding": PADDING},
        {"truncation": TRUNCATION, "padding": PADDING},
        model(dropout=0.0),
    ],
)
def test_settings_of_a_training_change_no_prompt(tmp_path: Path, changes: dict[str, Any]) -> None:
    codec = load_codec(write(tmp_path, **changes))
    expected = [small_tokenizer().token_to_id(c) for c in TEXT.replace(" ", "Ġ")]
    for same in (codec, codec_of(codec.serialised())):
        assert same.encode(TEXT) == expected
        assert same.encode_rendered(TEXT) == expected
        assert same.encode_pieces([Piece(TEXT, is_structure=False)]) == expected


def test_ids_that_are_drawn_by_lot_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, **model(dropout=0.25))
    with pytest.raises(
        BadTokenizer, match=r"json draws lots: with model\.dropout 0\.25 .* to null"
    ):
        load_codec(folder)


FAULTS: dict[str, dict[str, Any]] = {
    "a panic while it is read": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    },
    "a panic at every text": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "an unknown token that is unknown": model(unk_token="zz"),
    "words alone": {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}},
    "pieces without an unknown one": {
        "model": {
            "type": "Unigram",
            "unk_id": None,
            "vocab": [["a", 0.0]],
            "byte_fallback": False,
        }
    },
    "no model": {"model": None},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_at_a_text_is_refused_when_it_is_read(tmp_path: Path, fault: str) -> None:
    folder = write(tmp_path, **FAULTS[fault])
    for read in (load_codec, read_tokenizer):
        with pytest.raises(BadTokenizer) as caught:
            read(folder)
        said = str(caught.value)
        assert said.startswith(f"{folder / 'tokenizer.json'} ")
        assert said.isprintable()


def test_what_stands_there_is_what_is_kept(tmp_path: Path) -> None:
    assert read_tokenizer(tmp_path) is None
    assert read_tokenizer(write(tmp_path)) == (tmp_path / "tokenizer.json").read_bytes()


def test_a_panic_at_a_request_is_an_error_and_an_interrupt_stays_one() -> None:
    tokenizer = small_tokenizer()
    tokenizer.pre_tokenizer = FixedLength(0)  # pyright: ignore[reportAttributeAccessIssue]
    codec = TextCodec(tokenizer)
    with pytest.raises(TokenizerPanic, match="must be non-zero"):
        codec.encode_pieces([Piece("abc", is_structure=False)])
    for encode in (codec.encode, codec.encode_rendered):
        with pytest.raises(TokenizerPanic, match="must be non-zero"):
            encode("abc")
    for passes in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(passes), NoPanic():
            raise passes
