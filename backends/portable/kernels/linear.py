"""Products with stored weights on torch. Knows nothing of programs."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lostwax.backends.portable.kernels.blocks import dequantise
from lostwax.backends.portable.kernels.fp8 import widen
from lostwax.ir.contract.scale_layout import FP8_BLOCK


def linear(
    x: torch.Tensor,
    x_scale: torch.Tensor | None,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    out: torch.Tensor,
    *,
    row_tile: int,
) -> None:
    """Write x W^T: x [T, K] (fp8 with scales), weight [N, K] (any strides), out [T, N].

    What must be converted is converted `row_tile` rows of the weight at a time: whole blocks.
    """
    if scale is None and x.dtype == weight.dtype == out.dtype:
        torch.mm(x, weight.t(), out=out)
        return
    kept = x.dtype if out.dtype == x.dtype else torch.float32
    wide = x.to(kept) if x_scale is None else widen(x, x_scale)
    for start in range(0, weight.shape[0], row_tile):
        stop = min(start + row_tile, weight.shape[0])
        blocks = None if scale is None else scale[start // FP8_BLOCK : -(-stop // FP8_BLOCK)]
        tile = dequantise(weight[start:stop], blocks, kept)
        out[:, start:stop].copy_(torch.mm(wide, tile.t()))


def widened_linear(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """What `wide_products.linear` writes, on any device: x and W are converted whole."""
    torch.mm(x.float(), weight.float().t(), out=out)


def gate_up(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, workspace: torch.Tensor
) -> None:
    """Write silu(x Wg^T) * (x Wu^T): weight [2 I, K] holds Wg's rows, then Wu's; out [T, I].

    The product [T, 2 I] lies in the workspace, in x's dtype.
    """
    rows, wide = x.shape[0], weight.shape[0]
    used = workspace[: rows * wide * x.element_size()].view(x.dtype).view(rows, wide)
    torch.mm(x, weight.t(), out=used)
    half = wide // 2
    torch.mul(F.silu(used[:, :half].float()), used[:, half:], out=out)
