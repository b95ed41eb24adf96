"""Which lowerings run on an AMD GPU: those of all GPUs, and the portable ones behind them."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings import GPU
from lostwax.backends.gpu_kernels.lowerings.expanded_mha import EXPANDED_MHA
from lostwax.backends.gpu_kernels.lowerings.plain_linear import PLAIN_LINEAR
from lostwax.backends.gpu_kernels.lowerings.topk import INDEX_TOPK_PARTS, TOPK_PARTS
from lostwax.backends.gpu_kernels.lowerings.wide_products import WIDE_PRODUCTS
from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.backends.rocm.lowerings.aiter import AITER
from lostwax.backends.rocm.lowerings.aiter_ops import AITER_OPS
from lostwax.ir.contract.target import Target


def lowerings(target: Target) -> tuple[Lowering, ...]:
    """Shared and portable lowerings, and what stands in for what these targets lack: clusters of
    blocks for the selection, torch's products of halves into f32 for plain weights, Hopper's matrix
    units for prompts with expanded keys."""
    instead = (TOPK_PARTS, INDEX_TOPK_PARTS, PLAIN_LINEAR, *EXPANDED_MHA)
    return (*instead, AITER, *AITER_OPS, *GPU, *WIDE_PRODUCTS, *portable_lowerings(target))
