"""Arguments of each operator that is called, by its schema's names: small, and within its rules."""

from __future__ import annotations

from typing import Any

import torch

BF16, F32, I32 = torch.bfloat16, torch.float32, torch.int32
_TABLE = torch.tensor([[1, 2, 0], [3, 4, 5]], dtype=I32)
"""Blocks of two requests, which share none."""


def _normal(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.randn(*shape).to(dtype)


def _int8(*shape: int) -> torch.Tensor:
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def _attention() -> dict[str, Any]:
    keys = _normal(8, 16, 1, 512)
    selected = [[0, 3, 19, -1], [19, 1, 2, 7], [5, 39, 21, -1]]
    return {
        "query": _normal(3, 4, 512),
        "key": keys,
        "value": keys,
        "sparse_indices": torch.tensor(selected, dtype=I32)[:, None],
        "scale_value": 0.1,
        "block_table": _TABLE.clone(),
        "actual_seq_lengths_query": torch.tensor([2, 3], dtype=I32),
        "actual_seq_lengths_kv": torch.tensor([20, 40], dtype=I32),
        "query_rope": _normal(3, 4, 64),
        "key_rope": _normal(8, 16, 1, 64),
        "layout_query": "TND",
        "layout_kv": "PA_BSND",
        "sparse_mode": 0,
        "attention_mode": 2,
    }


def _indexer() -> dict[str, Any]:
    return {
        "query": _normal(3, 2, 128),
        "key": _normal(8, 16, 1, 128),
        "weights": _normal(3, 2, dtype=F32),
        "block_table": _TABLE.clone(),
        "actual_seq_lengths_query": torch.tensor([2, 3], dtype=I32),
        "actual_seq_lengths_key": torch.tensor([20, 40], dtype=I32),
        "layout_query": "TND",
        "layout_key": "PA_BSND",
        "sparse_count": 8,
        "sparse_mode": 3,
    }


def _routing() -> dict[str, Any]:
    return {
        "x": _int8(4, 64),
        "expert_idx": torch.tensor([[0, 1], [2, 0], [3, 1], [2, 3]], dtype=I32),
        "scale": _normal(4, dtype=F32),
        "active_num": 8,
        "expert_num": 4,
        "drop_pad_mode": 0,
        "expert_tokens_num_type": 1,
        "expert_tokens_num_flag": True,
        "quant_mode": -1,
        "active_expert_range": [0, 4],
        "row_idx_type": 0,
    }


def _latent_row() -> dict[str, Any]:
    return {
        "kv": _normal(3, 1, 1, 576),
        "gamma": _normal(512),
        "cos": _normal(3, 1, 1, 64),
        "sin": _normal(3, 1, 1, 64),
        "index": torch.tensor([17, -1, 40]),
        "k_cache": _normal(8, 16, 1, 64),
        "ckv_cache": _normal(8, 16, 1, 512),
        "epsilon": 1e-6,
        "cache_mode": "PA_BNSD",
    }


def _grouped() -> dict[str, Any]:
    return {
        "x": [_int8(8, 64)],
        "weight": [_int8(4, 64, 32)],
        "scale": [_normal(4, 32)],
        "per_token_scale": [_normal(8, dtype=F32)],
        "group_list": torch.tensor([1, 3, 0, 4]),
        "split_item": 2,
        "group_type": 0,
        "group_list_type": 1,
        "output_dtype": BF16,
    }


def SAMPLES() -> dict[str, dict[str, Any]]:
    """Arguments by operator, from a seed."""
    torch.manual_seed(0)
    return {
        "npu_rms_norm": {"input": _normal(4, 64), "gamma": _normal(64)},
        "npu_add_rms_norm": {"x1": _normal(4, 64), "x2": _normal(4, 64), "gamma": _normal(64)},
        "npu_rotary_mul": {
            "input": _normal(4, 2, 64, dtype=F32),
            "r1": _normal(4, 1, 64, dtype=F32),
            "r2": _normal(4, 1, 64, dtype=F32),
            "rotary_mode": "interleave",
        },
        "npu_scatter_nd_update_": {
            "input": _normal(32, 64),
            "indices": torch.tensor([[3], [5]]),
            "updates": _normal(2, 64),
        },
        "npu_kv_rmsnorm_rope_cache": _latent_row(),
        "npu_dynamic_quant": {"input": _normal(4, 64)},
        "npu_quant_matmul": {
            "x1": _int8(4, 64),
            "x2": _int8(64, 32),
            "scale": _normal(32, dtype=F32),
            "pertoken_scale": _normal(4, dtype=F32),
            "output_dtype": BF16,
        },
        "npu_swiglu": {"input": _normal(4, 64), "dim": -1},
        "npu_moe_gating_top_k": {
            "x": _normal(4, 16, dtype=F32),
            "k": 2,
            "bias": _normal(16, dtype=F32),
            "k_group": 2,
            "group_count": 4,
            "group_select_mode": 1,
            "norm_type": 1,
        },
        "npu_moe_init_routing_v2": _routing(),
        "npu_grouped_matmul": _grouped(),
        "npu_moe_finalize_routing": {
            "expanded_permuted_rows": _normal(8, 64, dtype=F32),
            "skip1": None,
            "skip2": None,
            "bias": None,
            "scales": _normal(4, 2, dtype=F32),
            "expanded_src_to_dst_row": torch.arange(8, dtype=I32),
            "export_for_source_row": None,
            "drop_pad_mode": 2,
        },
        "npu_lightning_indexer": _indexer(),
        "npu_sparse_flash_attention": _attention(),
    }
