"""Products with stored weights: int8 by CANN's operator, bf16 by torch's, which is CANN's there."""

from __future__ import annotations

import torch

from lostwax.backends.ascend.kernels.operators import calls, operator


def linear(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, row_tile: int) -> None:
    """Write x W^T: x [T, K], weight [N, K], out [T, N].

    Where they are of two dtypes both are widened to f32, `row_tile` rows of the weight at a time.
    """
    if x.dtype == weight.dtype == out.dtype:
        torch.mm(x, weight.t(), out=out)
        return
    wide = x.float()
    for start in range(0, weight.shape[0], row_tile):
        rows = slice(start, start + row_tile)
        out[:, rows].copy_(torch.mm(wide, weight[rows].float().t()))


@calls("npu_swiglu")
def gate_up(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """Write silu(x Wg^T) * (x Wu^T): weight [2 I, K] holds Wg's rows, then Wu's; out [T, I]."""
    out.copy_(operator("npu_swiglu")(torch.mm(x, weight.t()), -1))


@calls("npu_dynamic_quant")
def quantise(x: torch.Tensor, values: torch.Tensor, scales: torch.Tensor) -> None:
    """Write int8 values [T, K] and f32 scales [T, 1] of x [T, K]."""
    rounded, scale = operator("npu_dynamic_quant")(x)
    values.copy_(rounded)
    scales.copy_(scale[:, None])


@calls("npu_quant_matmul")
def quant_linear(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Write x W: int8 x [T, K] with scales [T, 1], int8 weight [K, N] with scales [1, N].

    The product leaves in bf16, and is widened where out [T, N] is f32.
    """
    out.copy_(_quant_product(x, x_scale, weight, scale))


@calls("npu_quant_matmul", "npu_swiglu")
def quant_gate_up(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Write silu(x Wg) * (x Wu): weight [K, 2 I] holds Wg's columns, then Wu's; out [T, I]."""
    out.copy_(operator("npu_swiglu")(_quant_product(x, x_scale, weight, scale), -1))


def _quant_product(
    x: torch.Tensor, x_scale: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    return operator("npu_quant_matmul")(
        x,
        weight,
        scale.reshape(-1),
        pertoken_scale=x_scale.reshape(-1),
        output_dtype=torch.bfloat16,
    )
