"""A field that says 0 says something: it is neither absent nor replaced by another's value."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import MTP, PLAIN, Config

from lostwax.frontend.config import ModelConfig, parse_config
from lostwax.frontend.config_fields import ConfigError
from lostwax.frontend.special_tokens import GENERATION_FILE, with_special_tokens
from lostwax.frontend.spellings import OTHER_NAMES, one_spelling


@pytest.mark.parametrize("other", OTHER_NAMES)
@pytest.mark.parametrize("values", [(0, 1), (1, 0), ("", "float32"), (False, 1)])
def test_zero_and_one_under_two_names_disagree(other: str, values: tuple[Any, Any]) -> None:
    name, (official, foreign) = OTHER_NAMES[other], values
    with pytest.raises(ConfigError, match="which disagree; remove the wrong one"):
        one_spelling({name: official, other: foreign})


@pytest.mark.parametrize("other", OTHER_NAMES)
def test_zero_under_either_name_arrives(other: str) -> None:
    name = OTHER_NAMES[other]
    for fields in ({name: 0}, {other: 0}, {name: 0, other: 0}, {name: 0, other: None}):
        assert one_spelling(fields) == {name: 0}
    assert one_spelling({name: None, other: 0}) == {name: 0}


def test_no_draft_layers_beside_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_nextn_predict_layers is 0 and num_mtp_layers is 1"):
        parse_config(MTP | {"num_nextn_predict_layers": 0, "num_mtp_layers": 1})


def test_no_dense_layers_beside_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="first_k_dense_replace is 0 and mlp_layer_types is"):
        parse_config(PLAIN | {"first_k_dense_replace": 0, "mlp_layer_types": ["dense", "sparse"]})


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id"])
def test_token_zero_is_a_token(tmp_path: Path, name: str) -> None:
    def tokens(config: ModelConfig) -> object:
        return config.bos_token_id if name == "bos_token_id" else config.eos_token_ids

    zero = 0 if name == "bos_token_id" else (0,)
    assert tokens(parse_config(PLAIN | {name: 0})) == zero
    (tmp_path / GENERATION_FILE).write_text(json.dumps({name: 0}))
    other = parse_config(PLAIN | {"bos_token_id": 5, "eos_token_id": [6, 7]})
    assert tokens(with_special_tokens(other, tmp_path)) == zero
    (tmp_path / GENERATION_FILE).write_text(json.dumps({name: 3}))
    changed = with_special_tokens(parse_config(PLAIN | {name: 0}), tmp_path)
    assert tokens(changed) == (3 if name == "bos_token_id" else (3,))


def test_more_dense_layers_than_layers() -> None:
    """transformers cuts the number in its list of layers; without the list it may be a mistake."""
    from transformers import DeepseekV32Config

    config = PLAIN | {"first_k_dense_replace": 3}
    given: Config = copy.deepcopy(config)  # transformers writes into the objects that it is given
    written: Config = DeepseekV32Config(**given).to_dict()
    assert written["first_k_dense_replace"] == 3
    assert written["mlp_layer_types"] == ["dense", "dense"]
    taken = parse_config(config | {"mlp_layer_types": written["mlp_layer_types"]})
    assert taken.first_k_dense_replace == 2
    assert [taken.layer_kind(n) for n in (0, 1, 2)] == ["dense", "dense", "moe"]
    with pytest.raises(ConfigError) as caught:
        parse_config(config)
    assert str(caught.value) == "first_k_dense_replace 3 exceeds num_hidden_layers (2)"
    for said in (1, 0):
        with pytest.raises(ConfigError, match=f"first_k_dense_replace is {said} and"):
            parse_config(
                config | {"first_k_dense_replace": said, "mlp_layer_types": ["dense", "dense"]}
            )
    assert parse_config(PLAIN | {"first_k_dense_replace": 2}).first_k_dense_replace == 2
