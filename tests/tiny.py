"""Small configurations of the architecture, as the dictionaries that `config.json` holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Config = dict[str, Any]

YARN: Config = {
    "type": "yarn",
    "factor": 40,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}

# 16 index heads and more: with few, all ReLUs are off so often that scores tie at the border of the
# selection, and then even transformers' prefill and decode differ.
PLAIN: Config = {
    "architectures": ["DeepseekV32ForCausalLM"],
    "model_type": "deepseek_v32",
    "torch_dtype": "float32",
    "vocab_size": 512,
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 128,
    "kv_lora_rank": 128,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "index_n_heads": 16,
    "index_head_dim": 128,
    "index_topk": 32,
    "max_position_embeddings": 163840,
    "rope_theta": 10000,
    "rope_scaling": YARN,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

ODD: Config = PLAIN | {
    "vocab_size": 211,
    "hidden_size": 116,
    "num_hidden_layers": 3,
    "intermediate_size": 92,
    "moe_intermediate_size": 44,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "n_group": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "q_lora_rank": 52,
    "kv_lora_rank": 50,
    "qk_nope_head_dim": 18,
    "qk_rope_head_dim": 10,
    "v_head_dim": 22,
    "index_n_heads": 17,
    "index_head_dim": 26,
}
"""Ranks and head dimensions that are multiples of nothing."""

DEEP: Config = PLAIN | {
    "hidden_size": 96,
    "num_hidden_layers": 6,
    "first_k_dense_replace": 2,
    "intermediate_size": 160,
    "moe_intermediate_size": 48,
    "n_routed_experts": 12,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.5,
    "q_lora_rank": 40,
    "kv_lora_rank": 64,
    "index_n_heads": 24,
    "index_head_dim": 64,
}
"""Six layers, two shared experts, one group."""

WIDE: Config = PLAIN | {
    "hidden_size": 640,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "index_head_dim": 128,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}
"""kv_a has 576 rows: in FP8 that is four blocks and a half."""

MTP: Config = DEEP | {"num_hidden_layers": 3, "num_nextn_predict_layers": 1}
"""With a multi-token-prediction layer in the checkpoint."""

CONFIGS: dict[str, Config] = {"plain": PLAIN, "odd": ODD, "deep": DEEP, "wide": WIDE}


def write_config(folder: Path, config: Config) -> Path:
    """Write `config.json` into a folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path
