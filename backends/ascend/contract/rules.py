"""The rules of each operator that is called, on A2 and A3: `RULES`, by the operator's name.

Read in the operators' documentation: github.com/Ascend/op-plugin, docs/zh/custom_APIs/torch_npu,
as of 2026-11; of `npu_rms_norm` and `npu_swiglu`, whose pages say little, what their neighbours
say. A page may be wrong: only a device shows what an operator does.
"""

from __future__ import annotations

from collections.abc import Mapping

from lostwax.backends.ascend.contract.rule import Argument, Axis, Rule

HALF = ("bf16", "f16")
WIDE = ("bf16", "f16", "f32")
INT8 = ("si8",)
F32 = ("f32",)
I32 = ("i32",)
I64 = ("i64",)
BLOCK = Axis(multiple_of=16, least=16, most=1024)
LAST_AXIS = Axis(most=65535)

_RULES = (
    Rule(
        op="npu_rms_norm",
        arguments={"input": Argument(WIDE, ("T", "D")), "gamma": Argument(WIDE, ("D",))},
        same=(("input", "gamma"),),
    ),
    Rule(
        op="npu_add_rms_norm",
        arguments={
            "x1": Argument(WIDE, ("T", "D")),
            "x2": Argument(WIDE, ("T", "D")),
            "gamma": Argument(WIDE, ("D",)),
        },
        same=(("x1", "x2", "gamma"),),
    ),
    Rule(
        op="npu_rotary_mul",
        arguments={
            "input": Argument(WIDE, ("T", "N", "D")),
            "r1": Argument(WIDE, ("T", 1, "D")),
            "r2": Argument(WIDE, ("T", 1, "D")),
        },
        axes={"N": Axis(most=999), "D": Axis(multiple_of=2, most=895)},
        values={"rotary_mode": ("half", "interleave")},
        same=(("input", "r1", "r2"),),
    ),
    Rule(
        op="npu_scatter_nd_update_",
        arguments={
            "input": Argument((*WIDE, "i64", "si8"), ("S", "D")),
            "indices": Argument((*I32, *I64), ("T", 1)),
            "updates": Argument((*WIDE, "i64", "si8"), ("T", "D")),
        },
        same=(("input", "updates"),),
    ),
    Rule(
        op="npu_kv_rmsnorm_rope_cache",
        arguments={
            "kv": Argument(HALF, ("T", 1, 1, 576)),
            "gamma": Argument(HALF, (512,)),
            "cos": Argument(HALF, ("T", 1, 1, 64)),
            "sin": Argument(HALF, ("T", 1, 1, 64)),
            "index": Argument(I64, ("T",)),
            "k_cache": Argument(HALF, ("blocks", "block", 1, 64)),
            "ckv_cache": Argument(HALF, ("blocks", "block", 1, 512)),
        },
        axes={"block": BLOCK},
        values={"cache_mode": ("PA_BNSD",), "is_output_kv": (False,)},
        same=(("kv", "gamma", "cos", "sin", "k_cache", "ckv_cache"),),
        lengths={"index": ("places", "blocks * block")},
    ),
    Rule(
        op="npu_dynamic_quant",
        arguments={"input": Argument(HALF, ("T", "D"))},
        values={"quant_mode": ("pertoken",)},
    ),
    Rule(
        op="npu_quant_matmul",
        arguments={
            "x1": Argument(INT8, ("T", "K")),
            "x2": Argument(INT8, ("K", "N")),
            "scale": Argument(("f32", "bf16"), ("N",)),
            "pertoken_scale": Argument(F32, ("T",)),
        },
        axes={"K": LAST_AXIS, "N": LAST_AXIS},
        values={"output_dtype": ("bf16",)},
    ),
    Rule(
        op="npu_swiglu",
        arguments={"input": Argument(WIDE, ("T", "D"))},
        axes={"D": Axis(multiple_of=2)},
        values={"dim": (-1,)},
    ),
    Rule(
        op="npu_moe_gating_top_k",
        arguments={"x": Argument(WIDE, ("T", "E")), "bias": Argument(WIDE, ("E",))},
        axes={
            "E": Axis(most=2048),
            "experts of a group": Axis(least=3),
            "groups of experts, each rounded up to 32": Axis(most=2048),
            "experts in the groups that are kept, less k": Axis(least=0),
        },
        values={"group_select_mode": (1,), "renorm": (0,), "norm_type": (1,)},
        same=(("x", "bias"),),
    ),
    Rule(
        op="npu_moe_init_routing_v2",
        arguments={
            "x": Argument((*WIDE, "si8"), ("T", "D")),
            "expert_idx": Argument(I32, ("T", "K")),
            "scale": Argument(F32, ("T",)),
        },
        values={
            "drop_pad_mode": (0,),
            "expert_tokens_num_type": (1,),
            "expert_tokens_num_flag": (True,),
            "quant_mode": (-1,),
            "row_idx_type": (0,),
        },
    ),
    Rule(
        op="npu_grouped_matmul",
        arguments={
            "x": Argument(("bf16", "si8"), ("R", "K")),
            "weight": Argument(("bf16", "si8"), ("E", "K", "N")),
            "scale": Argument(("bf16",), ("E", "N")),
            "per_token_scale": Argument(F32, ("R",)),
            "group_list": Argument(I64, ("E",)),
        },
        axes={"E": Axis(least=1, most=1024), "K": LAST_AXIS, "N": LAST_AXIS},
        values={
            "split_item": (2,),
            "group_type": (0,),
            "group_list_type": (1,),
            "output_dtype": ("bf16",),
        },
        same=(("x", "weight"),),
        lengths={"group_list": ("shares", "R")},
    ),
    Rule(
        op="npu_moe_finalize_routing",
        arguments={
            "expanded_permuted_rows": Argument(WIDE, ("R", "D")),
            "scales": Argument(WIDE, ("T", "K")),
            "expanded_src_to_dst_row": Argument(I32, ("R",)),
        },
        values={"drop_pad_mode": (2,)},
        same=(("expanded_permuted_rows", "scales"),),
    ),
    Rule(
        op="npu_lightning_indexer",
        arguments={
            "query": Argument(HALF, ("T", "N", 128), dense=True),
            "key": Argument(HALF, ("blocks", "block", 1, 128), dense=True),
            "weights": Argument(WIDE, ("T", "N"), dense=True),
            "actual_seq_lengths_query": Argument(I32, ("B",)),
            "actual_seq_lengths_key": Argument(I32, ("B",)),
            "block_table": Argument(I32, ("B", "P")),
        },
        axes={
            "N": Axis(least=1, most=64),
            "block": BLOCK,
            "sparse_count": Axis(least=1, most=2048),
        },
        values={"layout_query": ("TND",), "layout_key": ("PA_BSND",), "sparse_mode": (0, 3)},
        same=(("query", "key"),),
        lengths={
            "actual_seq_lengths_query": ("cumulative", "T"),
            "actual_seq_lengths_key": ("each", "P * block"),
        },
    ),
    Rule(
        op="npu_sparse_flash_attention",
        arguments={
            "query": Argument(HALF, ("T", "N", 512), dense=True),
            "key": Argument(HALF, ("blocks", "block", 1, 512), dense=True),
            "value": Argument(HALF, ("blocks", "block", 1, 512), dense=True),
            "sparse_indices": Argument(I32, ("T", 1, "K"), dense=True),
            "block_table": Argument(I32, ("B", "P")),
            "actual_seq_lengths_query": Argument(I32, ("B",)),
            "actual_seq_lengths_kv": Argument(I32, ("B",)),
            "query_rope": Argument(HALF, ("T", "N", 64), dense=True),
            "key_rope": Argument(HALF, ("blocks", "block", 1, 64), dense=True),
        },
        axes={"N": Axis(one_of=(1, 2, 4, 8, 16, 32, 64, 128)), "block": BLOCK, "K": Axis(least=1)},
        values={
            "attention_mode": (2,),
            "layout_query": ("TND",),
            "layout_kv": ("PA_BSND",),
            "sparse_mode": (0, 3),
            "sparse_block_size": (1,),
            "return_softmax_lse": (False,),
        },
        same=(("query", "key", "value", "query_rope", "key_rope"),),
        lengths={
            "actual_seq_lengths_query": ("cumulative", "T"),
            "actual_seq_lengths_kv": ("each", "P * block"),
        },
    ),
)

RULES: Mapping[str, Rule] = {rule.op: rule for rule in _RULES}


def gating_numbers(experts: int, groups: int, kept: int, k: int) -> dict[str, int]:
    """What the rule of `npu_moe_gating_top_k` derives from its sizes."""
    each = experts // groups
    return {
        "experts of a group": each,
        "groups of experts, each rounded up to 32": groups * (-(-each // 32) * 32),
        "experts in the groups that are kept, less k": each * kept - k,
    }
