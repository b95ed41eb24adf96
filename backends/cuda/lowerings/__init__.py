"""Which lowerings run on an NVIDIA GPU: this folder's own, those of all GPUs, and portable's."""

from __future__ import annotations

from lostwax.backends.cuda.lowerings.causal_mha import CAUSAL_MHA
from lostwax.backends.cuda.lowerings.flash_mla import FLASH_MLA
from lostwax.backends.cuda.lowerings.fp8_experts import MANY_ROWS_EXPERTS
from lostwax.backends.cuda.lowerings.fp8_linear import (
    MANY_ROWS_GATE_UP,
    MANY_ROWS_LINEAR,
    MANY_ROWS_PROJECTIONS,
)
from lostwax.backends.cuda.lowerings.fp8_queries import MANY_ROWS_QUERIES
from lostwax.backends.cuda.lowerings.index_logits import BF16_INDEX_LOGITS, FP8_INDEX_LOGITS
from lostwax.backends.cuda.lowerings.index_topk import (
    BF16_INDEX_TOPK_TILES,
    FP8_INDEX_TOPK_TILES,
    INDEX_TOPK_TILES,
)
from lostwax.backends.cuda.lowerings.masked_mha import MASKED_MHA
from lostwax.backends.cuda.lowerings.sparse_mla import SPARSE, SPARSE_ALL
from lostwax.backends.cuda.lowerings.topk import TOPK
from lostwax.backends.gpu_kernels.lowerings import GPU
from lostwax.backends.gpu_kernels.lowerings.wide_products import WIDE_PRODUCTS
from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.ir.contract.target import Target


def lowerings(target: Target) -> tuple[Lowering, ...]:
    """Own, shared and portable lowerings."""
    index = (FP8_INDEX_LOGITS, BF16_INDEX_LOGITS)
    selections = (FP8_INDEX_TOPK_TILES, BF16_INDEX_TOPK_TILES, INDEX_TOPK_TILES)
    own = (TOPK, *index, *selections, *SPARSE, *SPARSE_ALL, CAUSAL_MHA, MASKED_MHA, *FLASH_MLA)
    many_rows = (MANY_ROWS_LINEAR, MANY_ROWS_GATE_UP, MANY_ROWS_PROJECTIONS, MANY_ROWS_EXPERTS)
    return (*own, *many_rows, *MANY_ROWS_QUERIES, *GPU, *WIDE_PRODUCTS, *portable_lowerings(target))
