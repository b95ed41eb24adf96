"""What lostwax calls of AITER, AMD's kernels, as `amd-aiter` packages it. Imports it nowhere.

`tests/backends/aiter_signatures.json` holds what the wheel's functions take, read from its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import files

from lostwax.backends.runtime.argument_contract import signatures, unfit

PACKAGE, VERSION = "amd-aiter", "0.1.7"
"""The distribution, and how its version begins: others may differ in what follows."""
DECODE = "aiter/mla.py:mla_decode_fwd"
ROUTE = "aiter/ops/topk.py:biased_grouped_topk"
EXPERTS = "aiter/fused_moe.py:fused_moe"
NORM = "aiter/ops/triton/fused_fp8_quant.py:fused_rms_fp8_group_quant"
LOGITS = "aiter/ops/triton/pa_mqa_logits.py:deepgemm_fp8_paged_mqa_logits"
CALLS: Mapping[str, tuple[str, ...]] = {
    DECODE: (
        "q", "kv_buffer", "o", "qo_indptr", "kv_indptr", "kv_indices", "kv_last_page_lens",
        "max_seqlen_q", "sm_scale",
    ),
    ROUTE: (
        "gating_output", "correction_bias", "topk_weights", "topk_ids", "num_expert_group",
        "topk_group", "need_renorm", "routed_scaling_factor",
    ),
    EXPERTS: (
        "hidden_states", "w1", "w2", "topk_weight", "topk_ids", "quant_type", "w1_scale",
        "w2_scale", "a1_scale", "dtype",
    ),
    NORM: ("inp1", "inp1_weight", "inp1_epsilon", "group_size", "dtype_quant"),
    LOGITS: (
        "q_fp8", "kv_cache_fp8", "weights", "out_logits", "context_lens", "kv_indices",
        "max_model_len",
    ),
}  # fmt: skip
"""The functions that are called, by file and name, and the arguments that they are given."""
HEADS = (16, 128)
"""Heads that its decode takes of one row a request, in bf16."""


def misfit(*calls: str) -> str | None:
    """Why what is installed is not what these of CALLS were written for; reads its sources only."""
    paths = {str(path): path for path in files(PACKAGE) or ()}
    for call in calls:
        file, name = call.split(":")
        if file not in paths:
            return f"it has no {file}"
        taken = signatures(paths[file].read_text(encoding="utf-8")).get(name)
        reason = f"{file} has no {name}" if taken is None else unfit(call, CALLS[call], taken)
        if reason is not None:
            return reason
    return None
