"""Which lowerings run on an NVIDIA GPU: this folder's own, and the portable ones behind them."""

from __future__ import annotations

from lostwax.backends.cuda.lowerings.attend import ATTEND, ATTEND_ALL
from lostwax.backends.cuda.lowerings.norms import ADD_RMS_NORM, LAST_RMS_NORM, RMS_NORM
from lostwax.backends.cuda.lowerings.topk import TOPK
from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.ir.contract.target import Target

OWN: tuple[Lowering, ...] = (ADD_RMS_NORM, LAST_RMS_NORM, RMS_NORM, TOPK, ATTEND, ATTEND_ALL)


def lowerings(target: Target) -> tuple[Lowering, ...]:
    """Own and portable lowerings."""
    return OWN + portable_lowerings(target)
