"""A field that may change the model is read, neutral, known to be harmless, or refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import DEEP, MTP, ODD, PLAIN, WIDE, Config, write_config

from lostwax.frontend.config import parse_config, read_config
from lostwax.frontend.config_fields import ConfigError
from lostwax.frontend.known_fields import IGNORED, IMPLEMENTED, READ, UNIMPLEMENTED

ROOT = Path(__file__).parents[2]
OFFICIAL = sorted([*(ROOT / "examples").glob("*.json"), ROOT / "models/tiny/weights/config.json"])

RELATIVES: dict[str, Any] = {
    "index_topk_freq": 4,
    "index_skip_topk_offset": 3,
    "index_share_for_mtp_iteration": True,
    "index_topk_pattern": "FS",
    "indexer_types": ["full", "shared"],
    "layer_types": ["indexed_attention", "sliding_attention"],
    "swiglu_limit": 10.0,
    "sliding_window": 128,
    "compress_ratios": [0, 4],
    "num_hash_layers": 3,
    "hc_mult": 4,
    "o_groups": 8,
    "num_attention_sinks": 4,
    "expert_dtype": "fp4",
    "partial_rotary_factor": 0.5,
    "moe_layer_freq": 2,
    "kv_source_layer_ids": [0],
    "vision_config": {"depth": 2},
}
"""Fields of public checkpoints of the family as they stand there."""


def _refusal(config: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(config)
    return str(caught.value)


@pytest.mark.parametrize("name", RELATIVES)
def test_a_field_of_a_relative_is_refused_by_its_name(name: str) -> None:
    assert _refusal(PLAIN | {name: RELATIVES[name]}).startswith(f"{name} is ")


@pytest.mark.parametrize("name", UNIMPLEMENTED)
def test_every_feature_that_is_not_implemented_is_refused_and_may_be_neutral(name: str) -> None:
    refusal = _refusal(PLAIN | {name: 7})
    assert f"{name} is 7: lostwax does not implement {UNIMPLEMENTED[name].what}" in refusal
    for neutral in (None, False, 0, [], *UNIMPLEMENTED[name].neutral):
        parse_config(PLAIN | {name: neutral})


@pytest.mark.parametrize("name", IMPLEMENTED)
def test_every_field_of_one_value_is_refused_with_another(name: str) -> None:
    assert _refusal(PLAIN | {name: "else"}).startswith(f"{name} is 'else'; lostwax implements")
    for value in (None, *IMPLEMENTED[name]):
        parse_config(PLAIN | {name: value})


@pytest.mark.parametrize("value", [1, True, 0.5, "on", [0], {"a": None}, -1])
def test_an_unknown_field_is_refused_with_the_remedy(value: Any) -> None:
    refusal = _refusal(PLAIN | {"index_hops": value})
    assert refusal.startswith(f"index_hops is {value!r}, a field that lostwax does not know")
    assert "remove it from config.json if the weights do not depend on it" in refusal


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", [], {}])
def test_an_unknown_field_that_says_nothing_is_taken(value: Any) -> None:
    assert parse_config(PLAIN | {"index_hops": value}).index_topk == PLAIN["index_topk"]


def test_unknown_fields_inside_objects_are_refused_with_their_path() -> None:
    quant: Config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    parse_config(PLAIN | {"quantization_config": quant | {"modules_to_not_convert": ["lm_head"]}})
    parse_config(PLAIN | {"quantization_config": quant | {"scale_fmt": "float"}})
    refusal = _refusal(PLAIN | {"quantization_config": quant | {"rotation": "hadamard"}})
    assert refusal.startswith("quantization_config.rotation is 'hadamard', a field")
    fp4 = quant | {"expert_dtype": "fp4"}
    assert "expert_dtype is 'fp4'" in _refusal(PLAIN | {"quantization_config": fp4})


def test_harmless_fields_are_taken_with_any_value() -> None:
    harmless: Config = {name: "something" for names in IGNORED.values() for name in names}
    notes = {"_name_or_path": "x", "_attn_implementation_autoset": True}
    assert parse_config(PLAIN | harmless | notes).rope == parse_config(PLAIN).rope


def test_no_field_is_in_two_lists() -> None:
    lists = [READ, frozenset(IMPLEMENTED), frozenset(UNIMPLEMENTED), *IGNORED.values()]
    assert sum(map(len, lists)) == len(frozenset[str]().union(*lists))


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda p: p.name)
def test_official_configurations_are_taken(path: Path) -> None:
    assert read_config(path).num_hidden_layers > 0


@pytest.mark.parametrize("config", [PLAIN, ODD, DEEP, WIDE, MTP])
def test_what_transformers_writes_of_a_configuration_means_the_same(config: Config) -> None:
    from transformers import DeepseekV32Config

    own = copy.deepcopy(config)  # transformers writes into the objects that it is given
    written: Config = json.loads(DeepseekV32Config(**own).to_json_string(use_diff=False))
    ours, theirs = parse_config(config), parse_config(written)
    assert (theirs.rope, theirs.softmax_scale) == (ours.rope, ours.softmax_scale)
    assert theirs.first_k_dense_replace == ours.first_k_dense_replace
    assert parse_config(json.loads(DeepseekV32Config().to_json_string())).hidden_size == 7168


def test_code_of_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "configuration_deepseek.Config"}
    path = write_config(tmp_path, PLAIN | {"auto_map": auto_map, "trust_remote_code": True})
    code = f"open({str(tmp_path / 'was_run')!r}, 'w')"
    (tmp_path / "configuration_deepseek.py").write_text(code)
    assert read_config(path).hidden_size == PLAIN["hidden_size"]
    assert not (tmp_path / "was_run").exists()


def test_foreign_text_is_shown_short_and_on_one_line() -> None:
    foreign = "\x1b[2J\n" * 50
    for change in ({f"x{foreign}": 1}, {"hidden_act": foreign}, {"dtype": [foreign]}):
        refusal = _refusal(PLAIN | change)
        assert refusal.isprintable()
        assert len(refusal) < 400
