"""What torch does with the numbers of weights on their way to the form that is stored."""

from __future__ import annotations

import torch

from lostwax.backends.portable.kernels.fp8 import encoded, largest_of, power_of_two_above
from lostwax.backends.runtime.tensors import TORCH_DTYPES
from lostwax.backends.runtime.weight_steps import LEAST_SCALE
from lostwax.ir.contract.scale_layout import ScaleLayout


class TorchNumbers:
    """Satisfies `lostwax.backends.runtime.weight_steps.Numbers`."""

    dtypes = TORCH_DTYPES

    def zeros(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """A tensor."""
        return torch.zeros(shape, dtype=TORCH_DTYPES[dtype])

    def cast(self, values: torch.Tensor, dtype: str) -> torch.Tensor:
        """torch's conversion."""
        return values.to(TORCH_DTYPES[dtype])

    def widened(
        self, values: torch.Tensor, scales: torch.Tensor, rows: int, cols: int
    ) -> torch.Tensor:
        """One product."""
        return values.float().mul_(spread(scales, values.shape, rows, cols))

    def requantise(
        self, values: torch.Tensor, dtype: str, scale: ScaleLayout
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As below."""
        return requantise(values, TORCH_DTYPES[dtype], scale)

    def doubled(self, scales: torch.Tensor) -> torch.Tensor:
        """A product."""
        return scales.float() * 2

    def reencode(self, values: torch.Tensor) -> torch.Tensor:
        """By the bits."""
        return reencode(values)

    def permuted(self, values: torch.Tensor, perm: tuple[int, ...]) -> torch.Tensor:
        """A view."""
        return values.permute(perm)

    def padded(self, values: torch.Tensor, multiples: tuple[int, ...]) -> torch.Tensor:
        """A copy."""
        return _padded(values, multiples)

    def all_finite(self, values: torch.Tensor) -> bool:
        """Asked in f32."""
        return bool(torch.isfinite(values.float()).all())


def spread(scales: torch.Tensor, shape: torch.Size, rows: int, cols: int) -> torch.Tensor:
    """The f32 scale of each of the values [..., N, K], one a block of `rows` x `cols`."""
    by_row = scales.float().repeat_interleave(rows, -2)[..., : shape[-2], :]
    return by_row.repeat_interleave(cols, -1)[..., : shape[-1]]


def requantise(
    values: torch.Tensor, dtype: torch.dtype, scale: ScaleLayout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values in fp8 or si8, the largest of each block at its largest, and their scales."""
    wide = values.float()
    rows, cols = scale.block(tuple(wide.shape))
    largest = largest_of(dtype)
    high, broad = wide.shape[-2:]
    zeros = (0, -broad % cols, 0, -high % rows)
    whole = torch.nn.functional.pad(wide.abs(), zeros)
    blocks = whole.reshape(*whole.shape[:-2], -(-high // rows), rows, -(-broad // cols), cols)
    scales = blocks.amax((-3, -1)).div_(largest).clamp_(min=LEAST_SCALE)
    if scale.dtype != "f32":
        scales = power_of_two_above(scales)
    elif dtype == torch.int8:
        scales = bf16_above(scales)
    made = encoded(wide / spread(scales, wide.shape, rows, cols), dtype)
    return made, scales.to(TORCH_DTYPES[scale.dtype])


def bf16_above(scale: torch.Tensor) -> torch.Tensor:
    """The least bf16 number that is not below positive f32, by the bits, as f32."""
    bits = scale.view(torch.int32) + 0xFFFF
    return (bits & ~0xFFFF).view(torch.float32)


def reencode(values: torch.Tensor) -> torch.Tensor:
    """e4m3fn as e4m3fnuz: the same bits, which mean half (scales double). -0 becomes 0, NaN NaN."""
    bits = values.view(torch.uint8)
    is_nan = (bits & 0x7F) == 0x7F
    made = bits.masked_fill(bits == 0x80, 0).masked_fill(is_nan, 0x80)
    return made.view(torch.float8_e4m3fnuz)


def _padded(values: torch.Tensor, multiples: tuple[int, ...]) -> torch.Tensor:
    """Zero bytes behind each axis; pieces that are padded are whole but for a stacked axis."""
    shape = [-(-n // m) * m for n, m in zip(values.shape, multiples, strict=True)]
    out = values.new_empty(shape)
    out.view(torch.uint8).zero_()
    out[tuple(slice(n) for n in values.shape)].copy_(values)
    return out
