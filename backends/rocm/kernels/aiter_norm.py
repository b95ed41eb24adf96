"""RMSNorm and the rounding to fp8 behind it by AITER. **Never run on a device.**"""

from __future__ import annotations

import torch

from lostwax.backends.rocm.aiter_calls import NORM
from lostwax.backends.rocm.kernels.aiter_library import function, require_calls
from lostwax.ir.contract.scale_layout import FP8_BLOCK


def require_library() -> None:
    """MissingPackage unless AITER's norm takes what it is given."""
    require_calls(NORM)


def rms_norm_quantise(
    x: torch.Tensor,
    weight: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor,
    *,
    eps: float,
) -> None:
    """`fused_rms_fp8_group_quant` of one input, its f32 norm rounded at once.

    x [T, D], weight [D]; values fp8 [T, D] and scales f32 [T, D / 128] are written.
    """
    (rounded, found), *_ = function(NORM)(
        inp1=x,
        inp1_weight=weight,
        inp1_epsilon=eps,
        group_size=FP8_BLOCK,
        dtype_quant=values.dtype,
    )
    values.view(torch.uint8).copy_(rounded.view(torch.uint8))  # one-byte floats are bytes to torch
    scales.copy_(found)
