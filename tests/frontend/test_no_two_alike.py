"""A configuration of numbers that all differ: each arrives where its name says."""

from __future__ import annotations

import copy
from math import log
from typing import Any

import pytest
from tiny import PLAIN, Config

from lostwax.frontend.config import parse_config
from lostwax.ir.reference.yarn import magnitude

ROPE: Config = {
    "type": "yarn",
    "factor": 7,
    "original_max_position_embeddings": 1111,
    "beta_fast": 29,
    "beta_slow": 3,
    "mscale": 2.0,
    "mscale_all_dim": 0.5,
}
NUMBERS: Config = {
    "vocab_size": 311,
    "hidden_size": 116,
    "num_hidden_layers": 6,
    "first_k_dense_replace": 4,
    "intermediate_size": 92,
    "moe_intermediate_size": 44,
    "n_routed_experts": 64,
    "n_shared_experts": 9,
    "num_experts_per_tok": 15,
    "n_group": 16,
    "topk_group": 13,
    "routed_scaling_factor": 2.5,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "q_lora_rank": 52,
    "kv_lora_rank": 50,
    "qk_nope_head_dim": 18,
    "qk_rope_head_dim": 10,
    "v_head_dim": 22,
    "index_n_heads": 17,
    "index_head_dim": 26,
    "index_topk": 33,
    "max_position_embeddings": 9999,
    "rms_norm_eps": 3e-5,
    "num_nextn_predict_layers": 1,
    "bos_token_id": 201,
}
CONFIG = PLAIN | NUMBERS | {"rope_theta": 12345.0, "rope_scaling": ROPE, "eos_token_id": [202, 203]}


def test_every_number_arrives_under_its_name() -> None:
    config = parse_config(CONFIG)
    names = [n for n in NUMBERS if n != "num_key_value_heads"]
    assert len({NUMBERS[name] for name in names}) == len(names), "or a swap would pass"
    assert {name: getattr(config, name) for name in names} == {n: NUMBERS[n] for n in names}
    assert config.eos_token_ids == (202, 203)


def test_each_setting_of_yarn_has_its_own_place() -> None:
    rope = parse_config(CONFIG).rope
    assert (rope.dim, rope.theta, rope.factor) == (10, 12345.0, 7.0)
    assert (rope.original_len, rope.beta_fast, rope.beta_slow) == (1111, 29.0, 3.0)
    of_all = 0.05 * log(7) + 1
    assert rope.softmax_mscale == pytest.approx(of_all, rel=1e-12)
    assert rope.softmax_mscale == magnitude(7, 0.5)
    assert rope.magnitude == pytest.approx((0.2 * log(7) + 1) / of_all, rel=1e-12)
    assert parse_config(CONFIG).softmax_scale == pytest.approx(28**-0.5 * of_all**2, rel=1e-12)


def test_transformers_multiplies_by_the_same_numbers() -> None:
    from transformers import DeepseekV32Config
    from transformers.models.deepseek_v32 import modeling_deepseek_v32 as theirs

    given: Config = copy.deepcopy(CONFIG)  # transformers writes into the objects that it is given
    config: Any = DeepseekV32Config(**given)
    ours = parse_config(CONFIG)
    attention: Any = theirs.DeepseekV32Attention(config, 0)
    assert attention.scaling == pytest.approx(ours.softmax_scale, rel=1e-12)
    rotary: Any = theirs.DeepseekV32RotaryEmbedding(config)
    assert rotary.attention_scaling == pytest.approx(ours.rope.magnitude, rel=1e-12)
