"""The end and begin tokens of a checkpoint, out of two files. Knows no tokenizer.

Checkpoints of the family put `eos_token_id` into `generation_config.json`, one id or several, and
transformers' `generate` and the servers that follow it read it there. What that file states holds;
what it leaves out is taken from `config.json`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lostwax.frontend.config import MAX_CONFIG_BYTES, ModelConfig
from lostwax.frontend.config_fields import ConfigError, Fields
from lostwax.frontend.json_file import read_json_object

GENERATION_FILE = "generation_config.json"


def with_special_tokens(config: ModelConfig, folder: Path) -> ModelConfig:
    """The configuration with the folder's end and begin tokens; ConfigError if they are damaged.

    Of `generation_config.json` nothing else is read: how to sample is said by requests.
    """
    path = folder / GENERATION_FILE
    if not path.exists():
        return config
    fields = Fields(read_json_object(path, MAX_CONFIG_BYTES))
    try:
        begin, ends = fields.token("bos_token_id"), fields.tokens("eos_token_id")
        return replace(
            config,
            bos_token_id=config.bos_token_id if begin is None else begin,
            eos_token_ids=ends or config.eos_token_ids,
        )
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from e
