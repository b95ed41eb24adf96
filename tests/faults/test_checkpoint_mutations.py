"""A thousand damaged files of a checkpoint: each is refused with a name, or changes nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tiny import ODD, write_config

from lostwax.frontend.checkpoint import INDEX_FILE, CheckpointError, open_checkpoint
from lostwax.frontend.config_fields import ConfigError
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.frontend.special_tokens import GENERATION_FILE

SHARD = "model-00001-of-00001.safetensors"
NAMES = ("config.json", GENERATION_FILE, INDEX_FILE, SHARD)
TIMES = 250
SYNTAX = b'0123456789{}[]",:.-e'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mutations")
    config = write_config(made, ODD | {"num_hidden_layers": 2})
    new_checkpoint(config, made / "checkpoint", seed=0, format="fp8")
    tokens = '{"eos_token_id": [1, 2], "bos_token_id": 0}'
    (made / "checkpoint" / GENERATION_FILE).write_text(tokens)
    return made / "checkpoint"


def _mutated(data: bytes, limit: int, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2))):
        byte = rng.choice(SYNTAX) if rng.random() < 0.5 else rng.randrange(256)
        changed[rng.randrange(limit)] = byte
    return bytes(changed)


@pytest.mark.hostile
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_with_a_name_or_harmless(folder: Path, name: str) -> None:
    path, rng = folder / name, random.Random(name)
    good, refusals = path.read_bytes(), list[str]()
    limit = 8 + int.from_bytes(good[:8], "little") if name == SHARD else len(good)
    try:
        for _ in range(TIMES):
            path.write_bytes(_mutated(good, limit, rng))
            try:
                open_checkpoint(folder).facts(64)
            except (CheckpointError, ConfigError) as e:
                refusals.append(str(e))
    finally:
        path.write_bytes(good)
    named = (str(folder), name, "model.", "lm_head")  # the file, or the tensor that does not fit
    assert len(refusals) > TIMES / 3
    assert [text for text in refusals if not any(n in text for n in named)] == []
    assert [text for text in refusals if not text.isprintable() or len(text) > 700] == []
