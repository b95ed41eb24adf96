"""Small models whose formats between them reach every lowering: config, assign-formats options."""

from __future__ import annotations

from tiny import ODD, PLAIN, WIDE

FP8 = {
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
}

LITTLE = WIDE | FP8 | {"torch_dtype": "bfloat16", "vocab_size": 64}
SMALL_RANKS = PLAIN | {"kv_lora_rank": 50, "qk_rope_head_dim": 10, "index_head_dim": 32}

# name: (config, options of assign-formats)
FORMATS = {
    "f32": (ODD | {"num_nextn_predict_layers": 1}, {"dtype": "f32"}),
    "bf16": (PLAIN | {"torch_dtype": "bfloat16"}, {}),
    "fp8": (LITTLE, {}),
    "caches": (
        SMALL_RANKS,
        {"dtype": "f32", "kv": "fp8_656", "indexer": "fp8_fp32"},
    ),
    "raw_caches": (
        SMALL_RANKS,
        {"dtype": "f32", "kv": "fp8_576", "indexer": "fp8_ue8m0", "index_pages": "index_row"},
    ),
    "all_fp8": (
        LITTLE,
        {"kv": "fp8_656", "kv_scale": "ue8m0", "indexer": "fp8_ue8m0", "activations": "fp8_ue8m0"},
    ),
    "fnuz": (LITTLE, {"fp8": "f8E4M3FNUZ", "activations": "fp8_fp32"}),
}
