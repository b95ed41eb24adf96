"""End tokens come from where the family's checkpoints put them, and are tokens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tiny import ODD, write_config

from lostwax.frontend.checkpoint import Checkpoint, open_checkpoint
from lostwax.frontend.config import ModelConfig, parse_config
from lostwax.frontend.config_fields import ConfigError
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.frontend.special_tokens import GENERATION_FILE, with_special_tokens

SMALL = ODD | {"num_hidden_layers": 2, "eos_token_id": 1, "bos_token_id": 0}


def _with(folder: Path, generation: object) -> ModelConfig:
    (folder / GENERATION_FILE).write_text(json.dumps(generation))
    return with_special_tokens(parse_config(SMALL), folder)


@pytest.mark.parametrize(
    ("generation", "ends"),
    [
        ({"eos_token_id": 2}, (2,)),
        ({"eos_token_id": [3, 2, 3]}, (3, 2)),
        ({"eos_token_id": None}, (1,)),
        ({"eos_token_id": []}, (1,)),
        ({"temperature": 0.6, "top_p": 0.95, "do_sample": True}, (1,)),
    ],
)
def test_what_generation_config_states_holds(
    tmp_path: Path, generation: dict[str, Any], ends: tuple[int, ...]
) -> None:
    assert _with(tmp_path, generation).eos_token_ids == ends


def test_stated_end_tokens_are_those_of_transformers_generate(tmp_path: Path) -> None:
    from transformers import GenerationConfig

    for ends in (2, [3, 2]):
        ours = _with(tmp_path, {"eos_token_id": ends}).eos_token_ids
        theirs: Any = GenerationConfig.from_pretrained(tmp_path).eos_token_id
        assert ours == (tuple(theirs) if isinstance(theirs, list) else (theirs,))


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"eos_token_id": 211}, "eos_token_id 211 is no token of the vocabulary"),
        ({"eos_token_id": [1, 10**9]}, "whose vocab_size is 211"),
        ({"bos_token_id": 211}, "bos_token_id 211"),
        ({"eos_token_id": -1}, "eos_token_id is -1"),
        ({"eos_token_id": "1"}, "eos_token_id is '1', wants an integer"),
        ({"eos_token_id": [True]}, "eos_token_id is True"),
        ([1], "holds list, wants a JSON object"),
    ],
)
def test_what_is_no_token_is_refused_with_the_file(
    tmp_path: Path, generation: object, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _with(tmp_path, generation)
    assert str(tmp_path / GENERATION_FILE) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["eos_token_id", "bos_token_id"])
def test_a_token_of_config_json_beyond_the_vocabulary_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} 211 is no token of the vocabulary"):
        parse_config(SMALL | {name: 211})


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"eos_token_id": NaN}'])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / GENERATION_FILE).write_bytes(data)
    with pytest.raises(ConfigError, match=GENERATION_FILE):
        with_special_tokens(parse_config(SMALL), tmp_path)


def test_what_is_no_file_or_too_large_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / GENERATION_FILE
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="at most 1048576 are read: not a generation_config"):
        with_special_tokens(parse_config(SMALL), tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=GENERATION_FILE):
        with_special_tokens(parse_config(SMALL), tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokens")
    new_checkpoint(write_config(made, SMALL), made / "checkpoint", seed=0, format="bf16")
    return made / "checkpoint"


def test_the_digest_of_a_model_changes_with_its_end_tokens_only(folder: Path) -> None:
    def opened(generation: dict[str, Any] | None) -> Checkpoint:
        (folder / GENERATION_FILE).unlink(missing_ok=True)
        if generation is not None:
            (folder / GENERATION_FILE).write_text(json.dumps(generation))
        return open_checkpoint(folder)

    plain = opened(None)
    same = opened({"eos_token_id": 1, "bos_token_id": 0, "temperature": 0.6})
    other = opened({"eos_token_id": [1, 2]})
    assert same.digest == plain.digest
    assert other.digest != plain.digest
    assert other.facts(64).eos_token_ids == (1, 2)
    assert opened({"eos_token_id": [1, 2], "top_p": 0.9}).digest == other.digest
