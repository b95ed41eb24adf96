"""Kernels that other servers name and that are no lowering here. Imports nothing."""

from __future__ import annotations

from collections.abc import Mapping

_OWN = (
    "leave the choice to the planner, or name flashmla_sparse (for bf16 caches) or flashmla_kv (for"
    " fp8_656 ones)"
)
ELSEWHERE: Mapping[str, str] = {
    "flashmla_auto": "is SGLang's rule and no kernel: on Hopper it is flashmla_sparse for bf16"
    " caches and flashmla_kv for fp8_656 ones; name one of them",
    "fa3": "is FlashAttention 3 as sglang-kernel holds it (587 MiB, for one version of torch),"
    f" which lostwax does not call: {_OWN}",
    "tilelang": f"compiles where it first runs, and an artifact holds all that it runs: {_OWN}",
    "trtllm": "is FlashInfer's, whose kernels for this are for Blackwell and are fetched where they"
    f" first run: {_OWN}",
    "aiter": f"is AMD's, and its kernels are compiled where they first run: {_OWN}",
    "deep_gemm": "compiles where it first runs, with nvcc, and an artifact holds all that it runs:"
    " leave the choice to the planner",
}
"""Names that other servers give to kernels which are no lowering here: why, and what to do."""
