"""Arrays of golden probes as numbers: kept bytes, or drawn from a seed. Knows no lowering."""

from __future__ import annotations

from math import prod

import numpy as np

from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.probe import Data, Drawn, DrawnCache, Kept
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import FP8_MAX, NUMPY_DTYPES, Array
from lostwax.ir.reference.quant import quantise

LEAST_ROWS = 4
"""From so many on an array holds edge rows, beside at least one that is none."""
UNIT = 3.0**0.5
"""Uniform numbers up to this have the size 1."""


def array_of(data: Data) -> Array:
    """The array that the data stands for."""
    if isinstance(data, Kept):
        return np.frombuffer(data.data, NUMPY_DTYPES[data.dtype]).reshape(data.shape).copy()
    return cache_of(data).data if isinstance(data, DrawnCache) else _drawn(data)


def as_rows(values: Array) -> Array:
    """[first axis, all others]: what a probe compares row by row."""
    return values.reshape(values.shape[0], -1) if values.ndim > 1 else values[:, None]


def kept(array: Array, dtype: str) -> Kept:
    """The array as its bytes."""
    assert array.dtype == NUMPY_DTYPES[dtype]
    return Kept(shape=array.shape, dtype=dtype, data=np.ascontiguousarray(array).tobytes())


def _drawn(data: Drawn) -> Array:
    """Uniform in [low, high) in steps of 2^-24 of the range.

    numpy promises its bit generators' streams for ever, of its distributions it does not.
    """
    raw = np.random.Philox(key=data.seed).random_raw(prod(data.shape))
    unit = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    span = np.float32(data.high) - np.float32(data.low)
    values = unit * span + np.float32(data.low)
    largest = FP8_MAX.get(data.dtype)
    if largest is not None:
        values = np.clip(values, -largest, largest)
    shaped = values.reshape(data.shape)
    if data.edges:
        put_edges(shaped)
    return shaped.astype(NUMPY_DTYPES[data.dtype])  # from f32: rounded once


def put_edges(values: Array) -> None:
    """Rows 1, 2 and 3 (first axis) become zeros, exact powers of two and equal magnitudes.

    What rounds, ranks or divides by a row's size goes wrong there first. A row beside them stays as
    it is, so nothing is put where there are fewer than four.
    """
    if values.ndim < 2 or values.shape[0] < LEAST_ROWS:
        return
    rows = as_rows(values)
    columns = np.arange(rows.shape[1], dtype=np.float64)
    rows[1] = 0.0
    rows[2] = 2.0 ** (columns % 8 - 4.0)
    rows[3] = np.where(columns % 3 == 0, -0.5, 0.5)


def cache_of(data: DrawnCache) -> CacheBytes:
    """Pages of uniform rows."""
    form, count = LAYOUTS[data.layout], data.pages * data.page_tokens
    rows = _drawn(
        Drawn(shape=(count, sum(data.row)), dtype="f32", seed=data.seed, low=-UNIT, high=UNIT)
    )
    parts = np.split(rows, np.cumsum(data.row)[:-1], axis=1)
    first = quantise(parts[0], scale_fmt="fp32", dtype=form.dtypes[0], block=form.scale_block)
    empty = CacheBytes.zeros(data.layout, data.pages, data.page_tokens, data.row)
    return empty.written([first, *parts[1:]], np.arange(count))
