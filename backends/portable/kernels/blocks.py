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
    wide = scale.repeat_interleave(BLOCK, -2)[..., :rows, :]
    wide = wide.repeat_interleave(BLOCK, -1)[..., :cols]
    return (weight.float() * wide).to(dtype)
