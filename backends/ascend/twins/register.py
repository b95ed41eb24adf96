"""Gives this process the operators of `torch.ops.npu` on CPU tensors, by their twins.

With their own schemas where torch_npu is loaded, else with those that are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from lostwax.backends.ascend.contract.rules import RULES, gating_numbers
from lostwax.backends.ascend.contract.snapshot import read_snapshot
from lostwax.backends.ascend.kernels.composed import COMPOSED
from lostwax.backends.ascend.kernels.operators import installed_schema
from lostwax.backends.ascend.twins import attention, experts, plain
from lostwax.backends.ascend.twins.checked import Twin, checked

TWINS: Mapping[str, Twin] = {
    **COMPOSED,
    "npu_scatter_nd_update_": plain.scatter_nd_update,
    "npu_kv_rmsnorm_rope_cache": plain.kv_rmsnorm_rope_cache,
    "npu_quant_matmul": plain.quant_matmul,
    "npu_moe_init_routing_v2": experts.init_routing,
    "npu_grouped_matmul": experts.grouped_matmul,
    "npu_lightning_indexer": attention.lightning_indexer,
    "npu_sparse_flash_attention": attention.sparse_flash_attention,
}


def _gating(given: Mapping[str, Any]) -> dict[str, int]:
    experts_count = given["x"].shape[1]
    return gating_numbers(experts_count, given["group_count"], given["k_group"], given["k"])


def _selecting(given: Mapping[str, Any]) -> dict[str, int]:
    return {"sparse_count": given["sparse_count"]}


_DERIVED = {"npu_moe_gating_top_k": _gating, "npu_lightning_indexer": _selecting}


@cache
def register() -> torch.library.Library:
    """Register every twin, once a process; torch forgets them with the library that is given."""
    library = torch.library.Library("npu", "FRAGMENT")
    for name, schema in read_snapshot().schemas.items():
        if installed_schema(name) is None:
            library.define(schema.removeprefix("npu::"))
        library.impl(name, checked(RULES[name], TWINS[name], _DERIVED.get(name)), "CPU")
    return library
