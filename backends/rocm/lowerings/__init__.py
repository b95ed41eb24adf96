"""Which lowerings run on an AMD GPU: those of all GPUs, and the portable ones behind them."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings import GPU
from lostwax.backends.gpu_kernels.lowerings.topk import INDEX_TOPK_PARTS, TOPK_PARTS
from lostwax.backends.gpu_kernels.lowerings.wide_products import WIDE_PRODUCTS
from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.ir.contract.target import Target


def lowerings(target: Target) -> tuple[Lowering, ...]:
    """Shared and portable lowerings; the selection is cut into parts for want of clusters."""
    selection = (TOPK_PARTS, INDEX_TOPK_PARTS)
    return (*selection, *GPU, *WIDE_PRODUCTS, *portable_lowerings(target))
