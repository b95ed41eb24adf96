"""Views as torch tensors over byte buffers. Knows no program."""

from __future__ import annotations

from typing import Any

import torch

from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import View

TORCH_DTYPES: dict[str, torch.dtype] = {
    "f64": torch.float64,
    "i64": torch.int64,
    "f32": torch.float32,
    "i32": torch.int32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "u8": torch.uint8,
    "si8": torch.int8,
    "f8E4M3FN": torch.float8_e4m3fn,
    "f8E4M3FNUZ": torch.float8_e4m3fnuz,
    "f8E8M0FNU": torch.float8_e8m0fnu,
}


def tensor_of(buffer: torch.Tensor, view: View, offset: int = 0) -> torch.Tensor:
    """The view's tensor inside a u8 buffer, `offset` bytes further on.

    A leading -1 in the shape (pages of a cache) takes as many as the buffer holds.
    """
    start = offset + view.offset
    typed = (
        buffer[start:].view(TORCH_DTYPES[view.dtype])
        if start
        else buffer.view(TORCH_DTYPES[view.dtype])
    )
    shape = view.shape
    if shape and shape[0] == -1:
        shape = (buffer.numel() // DTYPE_BYTES[view.dtype] // view.strides[0], *shape[1:])
    return typed.as_strided(shape, view.strides, typed.storage_offset())


def tensor_over(buffer: Any, view: View, start: int) -> torch.Tensor:
    """The view's tensor over a u8 numpy buffer, in which it begins at byte `start`."""
    return tensor_of(torch.from_numpy(buffer), view, start - view.offset)
