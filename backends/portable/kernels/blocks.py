"""Block scales multiplied into a weight. Knows nothing of programs."""

from __future__ import annotations

import torch

from lostwax.ir.contract.scale_layout import FP8_BLOCK


def dequantise(
    weight: torch.Tensor, scale: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """The weight [..., N, K] in `dtype`, with its scales [..., rows, cols of blocks] if any.

    Blocks are of FP8_BLOCK rows and columns; the last ones may be partial (576 rows are 4.5).
    """
    if scale is None:
        return weight.to(dtype)
    rows, cols = weight.shape[-2:]
    by_row = scale.repeat_interleave(FP8_BLOCK, -2)[..., :rows, :]
    wide = weight.to(torch.float32, copy=True)  # scaled in place below
    if cols % FP8_BLOCK == 0:
        blocked = wide.reshape(*wide.shape[:-1], cols // FP8_BLOCK, FP8_BLOCK)
        return blocked.mul_(by_row[..., None]).reshape(wide.shape).to(dtype)
    return wide.mul_(by_row.repeat_interleave(FP8_BLOCK, -1)[..., :cols]).to(dtype)
