"""Block scales multiplied into a weight. Knows nothing of programs."""

from __future__ import annotations

import torch

BLOCK = 128  # checkpoint: quantization_config.weight_block_size [128, 128]


def dequantise(
    weight: torch.Tensor, scale: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """The weight [..., N, K] in `dtype`, with its scales [..., ceil(N/128), ceil(K/128)] if any.

    The last blocks may be partial (576 rows are 4.5 blocks).
    """
    if scale is None:
        return weight.to(dtype)
    rows, cols = weight.shape[-2:]
    by_row = scale.repeat_interleave(BLOCK, -2)[..., :rows, :]
    wide = weight.to(torch.float32, copy=True)  # scaled in place below
    if cols % BLOCK == 0:
        blocked = wide.reshape(*wide.shape[:-1], cols // BLOCK, BLOCK)
        return blocked.mul_(by_row[..., None]).reshape(wide.shape).to(dtype)
    return wide.mul_(by_row.repeat_interleave(BLOCK, -1)[..., :cols]).to(dtype)
