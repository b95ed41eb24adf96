"""What numpy does with the numbers of weights on their way to the form that is stored.

In f32 and a piece at a time, as torch does it; `ir/reference/weight_forms.py`, whose bits these
are, goes through fp64.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lostwax.backends.runtime.weight_steps import LEAST_SCALE
from lostwax.ir.contract.scale_layout import ScaleLayout
from lostwax.ir.reference.dtype import LARGEST, NUMPY_DTYPES, Array
from lostwax.ir.reference.quant import power_of_two_above
from lostwax.ir.reference.weight_forms import bf16_above, pad


class ArrayNumbers:
    """Satisfies `lostwax.backends.runtime.weight_steps.Numbers`."""

    dtypes = NUMPY_DTYPES

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """An array."""
        return np.zeros(shape, NUMPY_DTYPES[dtype])

    def cast(self, values: Array, dtype: str) -> Array:
        """Plans cast what has at most 32 bits, which ml_dtypes rounds once."""
        wanted = NUMPY_DTYPES[dtype]
        if values.dtype == wanted:
            return values
        with np.errstate(over="ignore"):
            return (wide(values) if wanted == np.float32 else values).astype(wanted, copy=False)

    def widened(self, values: Array, scales: Array, rows: int, cols: int) -> Array:
        """In place of the widened values, a row of blocks at a time."""
        made, by_block = wide(values), wide(scales)
        if made is values:
            made = made.copy()
        for first in range(0, made.shape[-2], rows):
            across = np.repeat(by_block[..., first // rows, :], cols, -1)[..., : made.shape[-1]]
            made[..., first : first + rows, :] *= across[..., None, :]
        return made

    def requantise(self, values: Array, dtype: str, scale: ScaleLayout) -> tuple[Array, Array]:
        """Block by block."""
        x = np.array(wide(values))
        high, broad = x.shape[-2:]
        rows, cols = scale.block(x.shape)
        zeros = [(0, 0)] * (x.ndim - 2) + [(0, -high % rows), (0, -broad % cols)]
        whole = np.pad(np.abs(x), zeros)
        blocks = whole.reshape(*x.shape[:-2], -(-high // rows), rows, -(-broad // cols), cols)
        largest = np.float32(LARGEST[dtype])
        scales: Array = np.maximum(blocks.max((-3, -1)) / largest, np.float32(LEAST_SCALE))
        if scale.dtype != "f32":
            scales = power_of_two_above(scales)
        elif dtype == "si8":
            scales = bf16_above(scales)
        spread = np.repeat(np.repeat(scales, rows, -2)[..., :high, :], cols, -1)[..., :broad]
        x /= spread
        np.clip(x, -largest, largest, out=x)
        if dtype == "si8":
            x = np.rint(np.where(np.isnan(x), np.float32(0), x))
        made: Array = x.astype(NUMPY_DTYPES[dtype])
        return made, scales.astype(NUMPY_DTYPES[scale.dtype])

    def doubled(self, scales: Array) -> Array:
        """A product."""
        return wide(scales) * np.float32(2)

    def reencode(self, values: Array) -> Array:
        """By a table of all bytes."""
        bits = np.arange(256, dtype=np.uint8)
        table = np.where((bits & 0x7F) == 0x7F, 0x80, np.where(bits == 0x80, 0, bits))
        made: Array = table.astype(np.uint8)[values.view(np.uint8)]
        return made.view(NUMPY_DTYPES["f8E4M3FNUZ"])

    def permuted(self, values: Array, perm: tuple[int, ...]) -> Array:
        """A view."""
        return values.transpose(perm)

    def padded(self, values: Array, multiples: tuple[int, ...]) -> Array:
        """A copy."""
        return pad(np.ascontiguousarray(values), multiples)

    def all_finite(self, values: Array) -> bool:
        """Asked in f32."""
        return bool(np.isfinite(wide(values)).all())


@cache
def _numbers(dtype: np.dtype[np.void]) -> Array:
    """What each byte of a type of one byte stands for, in f32."""
    return np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)


def wide(values: Array) -> Array:
    """In f32; those of a byte by a table, which is faster than a conversion."""
    if values.dtype.itemsize == 1 and values.dtype.kind not in "iu":
        # Every byte is within the table; looking whether it is takes seven times as long.
        return np.asarray(_numbers(values.dtype).take(values.view(np.uint8), mode="clip"))
    return values.astype(np.float32, copy=False)
