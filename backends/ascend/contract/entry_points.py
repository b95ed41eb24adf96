"""Functions of CANN behind torch_npu's operators. Knows no library that is loaded.

torch_npu has their names as text and looks for them when it calls one: `./dev ascend` checks that
2.13.0 has each of these. That an operator calls them was read in github.com/Ascend/op-plugin, where
a newer one is taken if CANN has it: one of an operator's suffices.
"""

from __future__ import annotations

from collections.abc import Mapping

LIBRARIES = ("libopapi.so", "libopapi_*.so")
"""Of CANN, one or split by field; the latter below its folder `lib64`."""

ENTRY_POINTS: Mapping[str, tuple[str, ...]] = {
    "npu_rms_norm": ("aclnnRmsNorm",),
    "npu_add_rms_norm": ("aclnnAddRmsNorm",),
    "npu_rotary_mul": ("aclnnRotaryPositionEmbedding",),
    "npu_scatter_nd_update_": ("aclnnScatterNdUpdate",),
    "npu_kv_rmsnorm_rope_cache": ("aclnnKvRmsNormRopeCache", "aclnnKvRmsNormRopeCacheV2"),
    "npu_dynamic_quant": ("aclnnDynamicQuant", "aclnnDynamicQuantV2"),
    "npu_quant_matmul": ("aclnnQuantMatmulV5",),
    "npu_swiglu": ("aclnnSwiGlu",),
    "npu_moe_gating_top_k": ("aclnnMoeGatingTopK", "aclnnMoeGatingTopKV2"),
    "npu_moe_init_routing_v2": ("aclnnMoeInitRoutingV2", "aclnnMoeInitRoutingV3"),
    "npu_grouped_matmul": ("aclnnGroupedMatmulV4", "aclnnGroupedMatmulV5"),
    "npu_moe_finalize_routing": ("aclnnMoeFinalizeRoutingV2",),
    "npu_lightning_indexer": ("aclnnLightningIndexer",),
    "npu_sparse_flash_attention": ("aclnnSparseFlashAttention", "aclnnSparseFlashAttentionV2"),
}
"""By operator."""
