"""Element types in numpy: rounding to them and widening from them. Knows no op."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # Any: ml_dtypes' element types have no numpy stubs
Real = NDArray[np.float64]

NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "u8": np.dtype(np.uint8),
    "si8": np.dtype(np.int8),
    "f8E4M3FN": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "f8E8M0FNU": np.dtype(ml_dtypes.float8_e8m0fnu),
}
"""numpy's element type by the name that types, views and records use."""

LARGEST: dict[str, float] = {"f8E4M3FN": 448.0, "f8E4M3FNUZ": 240.0, "si8": 127.0}
"""The largest value of each type that values with scales have. -128 is left out, so that a number
and its negative are rounded alike."""


def dtype_name(values: Array) -> str:
    """The name of an array's element type."""
    return next(name for name, dtype in NUMPY_DTYPES.items() if dtype == values.dtype)


@dataclass(frozen=True, slots=True)
class Scaled:
    """Values with one scale per `rows` x `cols` block of the last two axes; the scale multiplies.

    Edge blocks may be partial: 576 rows in blocks of 128 have 5 rows of scales.
    """

    values: Array
    scales: Array
    rows: int
    cols: int

    def __post_init__(self) -> None:
        *batch, rows, cols = self.values.shape
        want = (*batch, -(-rows // self.rows), -(-cols // self.cols))
        if self.scales.shape != want:
            raise ValueError(
                f"values of shape {self.values.shape} in blocks of {self.rows}x{self.cols} need "
                f"scales of shape {want}, got {self.scales.shape}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape."""
        return self.values.shape

    def __getitem__(self, i: int) -> Scaled:
        """One entry of the first axis, which blocks do not cut (an expert of a stack)."""
        if self.values.ndim < 3:
            raise IndexError("only a stack of scaled matrices can be indexed")
        return Scaled(self.values[i], self.scales[i], self.rows, self.cols)


Value = Array | Scaled


def some_rows(value: Value, first: int, end: int) -> Value:
    """Rows of a matrix; `first` starts a block where it has scales."""
    if not isinstance(value, Scaled):
        return value[first:end]
    scales = value.scales[first // value.rows : -(-end // value.rows)]
    return Scaled(value.values[first:end], scales, value.rows, value.cols)


def _to_odd_f32(x: Real) -> NDArray[np.float32]:
    """Round fp64 to f32 with the last bit sticky, so that rounding further rounds only once."""
    near = x.astype(np.float32)
    back = near.astype(np.float64)
    bits = near.view(np.uint32)
    truncated = np.where(np.abs(back) > np.abs(x), bits - np.uint32(1), bits)
    sticky = np.where(back == x, truncated, truncated | np.uint32(1))
    return np.where(np.isfinite(x), sticky, bits).view(np.float32)


def round_to(array: Array, dtype_name: str) -> Array:
    """The array in the named element type: nearest even from fp64 in one rounding.

    fp8 and si8 saturate at their largest value; NaN stays NaN, which si8 lacks: there it is 0.
    """
    dtype = NUMPY_DTYPES.get(dtype_name)
    if dtype is None:
        raise ValueError(f"unknown element type {dtype_name!r}; known: {', '.join(NUMPY_DTYPES)}")
    is_scaled = dtype_name in LARGEST
    if array.dtype == dtype or (np.issubdtype(dtype, np.integer) and not is_scaled):
        return array.astype(dtype)
    exact = array.astype(np.float64)
    if is_scaled:
        exact = np.clip(exact, -LARGEST[dtype_name], LARGEST[dtype_name])
    if dtype_name == "si8":
        return np.rint(np.where(np.isnan(exact), 0, exact)).astype(dtype)
    with np.errstate(over="ignore"):
        if dtype.itemsize < 4 and dtype_name != "f16":  # ml_dtypes goes through f32
            return _to_odd_f32(np.ascontiguousarray(exact)).astype(dtype)
        return exact.astype(dtype)


@cache
def _numbers(dtype: np.dtype[Any]) -> Real:
    """What each byte of a type of one byte stands for."""
    return np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)


def _wide(values: Array) -> Real:
    """Values in fp64; those of a byte by a table, which is faster than a conversion."""
    if values.dtype.itemsize == 1:
        # Every byte is within the table; looking whether it is takes seven times as long.
        return np.asarray(_numbers(values.dtype).take(values.view(np.uint8), mode="clip"))
    return values.astype(np.float64)


def widen(value: Value) -> Array:
    """Floating-point values in fp64 with scales multiplied in, integers in i64."""
    if isinstance(value, Scaled):
        *_, rows, cols = value.values.shape
        wide = _wide(value.values)
        scales = value.scales.astype(np.float64)
        if value.rows > 1:
            scales = np.repeat(scales, value.rows, axis=-2)[..., :rows, :]
        for block in range(scales.shape[-1]):  # in place: stacks of experts are large
            of_block = slice(block * value.cols, min((block + 1) * value.cols, cols))
            wide[..., of_block] *= scales[..., block, None]
        return wide
    if np.issubdtype(value.dtype, np.integer):
        return value.astype(np.int64)
    return _wide(value)
