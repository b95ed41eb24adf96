"""Two names of one setting mean one thing, and two values of it are refused."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import MTP, PLAIN, Config

from lostwax.frontend.config import ModelConfig, parse_config, read_config
from lostwax.frontend.config_fields import ConfigError

SAME: dict[str, tuple[str, Any]] = {
    "num_local_experts": ("n_routed_experts", 8),
    "num_experts": ("n_routed_experts", 8),
    "num_mtp_layers": ("num_nextn_predict_layers", 1),
    "dtype": ("torch_dtype", "float32"),
    "mlp_layer_types": ("first_k_dense_replace", ["dense", "sparse", "sparse"]),
}
"""Another name of a field, and the value that says the same of `_BASE`."""
_BASE: Config = MTP | {"first_k_dense_replace": 1, "n_routed_experts": 8, "torch_dtype": "float32"}
OTHER: dict[str, Any] = {
    "num_local_experts": 16,
    "num_experts": 4,
    "num_mtp_layers": 2,
    "dtype": "bfloat16",
    "mlp_layer_types": ["dense", "dense", "sparse"],
}
DERIVED = {
    "qk_head_dim": (48, 13),
    "head_dim": (16, 13),
    "num_key_value_heads": (4, 1),
    "layer_types": (["indexed_attention"] * 2, ["full_attention"] * 2),
    "indexer_types": (["full"] * 2, ["full", "shared"]),
    "index_topk_pattern": ("FF", "FS"),
}
"""Fields that follow from others of `PLAIN`: what they must say, and something else."""


def _settings(config: ModelConfig) -> list[object]:
    return [getattr(config, n) for n in ModelConfig.__slots__ if n != "digest"]  # pyright: ignore


@pytest.mark.parametrize("name", SAME)
def test_the_other_name_alone_says_the_same(name: str) -> None:
    official, value = SAME[name]
    alone = {k: v for k, v in _BASE.items() if k != official} | {name: value}
    want = _settings(parse_config(_BASE))
    assert _settings(parse_config(alone)) == want
    assert _settings(parse_config(_BASE | {name: value})) == want
    assert _settings(parse_config(_BASE | {name: None})) == want


@pytest.mark.parametrize("name", SAME)
def test_both_names_with_two_values_are_refused(name: str) -> None:
    official, _ = SAME[name]
    with pytest.raises(ConfigError) as caught:
        parse_config(_BASE | {name: OTHER[name]})
    sentence = str(caught.value)
    assert official in sentence
    assert f"{name} is " in sentence
    assert "disagree; remove the wrong one" in sentence


@pytest.mark.parametrize("name", DERIVED)
def test_what_follows_from_other_fields_must_agree_with_them(name: str) -> None:
    right, wrong = DERIVED[name]
    assert _settings(parse_config(PLAIN | {name: right})) == _settings(parse_config(PLAIN))
    with pytest.raises(ConfigError, match=name):
        parse_config(PLAIN | {name: wrong})


def test_one_name_twice_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"index_topk": 32, "index_topk": 64}')
    with pytest.raises(ConfigError, match="the name 'index_topk' occurs twice"):
        read_config(path)
