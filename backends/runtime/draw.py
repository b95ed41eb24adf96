"""Arrays of golden probes as numbers, whole or where they are asked for. Knows no lowering.

A drawn number follows from its seed and its flat index by an integer hash, so that any of them can
be had alone; `draw_on_device.py` makes the same numbers where a device's memory is to be filled.
From `PERIOD` on the numbers repeat: a prime, so that no two rows, tiles or experts of any width are
alike, and few enough that gigabytes are copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod

import msgspec
import numpy as np

from lostwax.backends.runtime.hash_numbers import bits24
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.probe import (
    Data,
    Drawn,
    DrawnBits,
    DrawnCache,
    DrawnScores,
    DrawnSelection,
    Kept,
)
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import LARGEST, NUMPY_DTYPES, Array, Value
from lostwax.ir.reference.quant import quantise

PERIOD = 1_048_573
"""The largest prime below 2^20."""
PERIODS_KEPT = 32
"""A MB or two each: probes of one compile draw the same weights again."""
AT_ONCE = 1 << 14
"""Numbers that are hashed together: few enough that they stay in a core's cache."""
CACHE_PERIOD = 4093
"""Rows of a drawn cache that differ: a prime, so that no two pages are alike."""
LEAST_ROWS = 4
"""From so many on an array holds edge rows, beside at least one that is none."""
UNIT = 3.0**0.5
"""Uniform numbers up to this have the size 1."""
SCORE_TIES = 4
NAN_EVERY = 5
"""Columns of a row of scores."""

At = Sequence[Array | None]
"""Which indexes of each axis are wanted, all where None or where there are fewer."""


def array_of(data: Data, at: At = ()) -> Array:
    """What the data stands for at the indexes: by default the whole array.

    Pages of a cache are bytes [pages, page_bytes].
    """
    match data:
        case Kept():
            return taken(_held(data), at)
        case Drawn():
            return _drawn(data, at)
        case DrawnBits():
            return _repeated(data, at)
        case DrawnCache():
            return cache_of(data, at[0] if at else None).data
        case DrawnScores():
            return _scores(data, at)
        case DrawnSelection():
            return taken(_selection(data, at[0] if at else None), (None, *at[1:]))


def taken(values: Array, at: At) -> Array:
    """The values at the indexes of each axis."""
    for axis, wanted in enumerate(at):
        if wanted is not None:
            values = np.take(values, wanted, axis)
    return values


def as_rows(values: Array) -> Array:
    """[first axis, all others]: what a probe compares row by row."""
    return values.reshape(values.shape[0], -1) if values.ndim > 1 else values[:, None]


def kept(array: Array, dtype: str) -> Kept:
    """The array as its bytes, or as the first of each axis where all others are the last one."""
    assert array.dtype == NUMPY_DTYPES[dtype]
    held = _box(array)
    cut = array[tuple(slice(0, n) for n in held)]
    return Kept(
        shape=array.shape,
        dtype=dtype,
        data=np.ascontiguousarray(cut).tobytes(),
        held=None if held == array.shape else held,
    )


def kept_whole(array: Array, dtype: str) -> Kept:
    """The array as all of its bytes: numbers that differ."""
    return Kept(shape=array.shape, dtype=dtype, data=np.ascontiguousarray(array).tobytes())


def _box(array: Array) -> tuple[int, ...]:
    """The least leading box that ends in the array's last number and leaves out only that one."""
    if array.size == 0:
        return array.shape
    differs = array != array.reshape(-1)[-1]
    found: list[int] = []
    for axis, extent in enumerate(array.shape):
        others = tuple(i for i in range(array.ndim) if i != axis)
        last = np.flatnonzero(differs.any(axis=others))
        found.append(min(int(last[-1]) + 2 if last.size else 1, extent))
    box = tuple(found)
    corner = array[tuple(n - 1 for n in box)]
    return box if corner == array.reshape(-1)[-1] else array.shape


def _held(data: Kept) -> Array:
    dtype = NUMPY_DTYPES[data.dtype]
    values = np.frombuffer(data.data, dtype).reshape(data.held or data.shape)
    if data.held is None:
        return values.copy()
    whole = np.full(data.shape, values.reshape(-1)[-1], dtype)
    whole[tuple(slice(0, n) for n in data.held)] = values
    return whole


def _numbers(seed: int, index: Array, low: float, high: float, dtype: str) -> Array:
    """Uniform in [low, high) in steps of 2^-24 of the range, rounded to the dtype once."""
    unit = bits24(seed, index).astype(np.float32) * np.float32(2.0**-24)
    values = unit * (np.float32(high) - np.float32(low)) + np.float32(low)
    largest = LARGEST.get(dtype)
    if largest is not None:
        values = np.clip(values, -largest, largest)
    return values.astype(NUMPY_DTYPES[dtype])  # from f32: rounded once


def _numbers_of(data: Drawn | DrawnBits, index: Array) -> Array:
    """The numbers at these flat indexes."""
    match data:
        case Drawn():
            return _numbers(data.seed, index, data.low, data.high, data.dtype)
        case DrawnBits():
            return _bits(data.seed, index)


def _bits(seed: int, index: Array) -> Array:
    """i32: the upper bits from one hash of the index, the lower ones from another."""
    high, low = bits24(seed, index), bits24(seed + 1, index)
    return ((high & 0xFFFF) << 16 | low & 0xFFFF).astype(np.uint32).view(np.int32)


@lru_cache(maxsize=PERIODS_KEPT)
def _period(data: Drawn | DrawnBits) -> Array:
    """The numbers until they repeat, whatever the shape of the data."""
    starts = range(0, PERIOD, AT_ONCE)
    parts = (np.arange(i, min(i + AT_ONCE, PERIOD)) for i in starts)
    made = np.concatenate([_numbers_of(data, part) for part in parts])
    made.flags.writeable = False
    return made


def _runs(shape: tuple[int, ...], at: At) -> tuple[Array, int]:
    """Flat indexes where the wanted numbers start, and how many lie behind one another there."""
    wanted = [*at, *[None] * (len(shape) - len(at))]
    last = max((i for i, w in enumerate(wanted) if w is not None), default=-1)
    starts: Array = np.zeros(1, np.int64)
    for axis in range(last + 1):
        each = wanted[axis]
        index = np.arange(shape[axis]) if each is None else each.astype(np.int64)
        starts = (starts[:, None] + index * prod(shape[axis + 1 :])).reshape(-1)
    return starts, prod(shape[last + 1 :])


def _pieces(period: Array, start: int, length: int) -> Iterator[Array]:
    place = start % PERIOD
    while length:
        piece = period[place : place + length]
        length -= piece.size
        place = 0
        yield piece


def _repeated(data: Drawn | DrawnBits, at: At) -> Array:
    """The wanted numbers of an array whose numbers repeat after a period."""
    starts, length = _runs(data.shape, at)
    if starts.size * length < PERIOD // 4 or length < 64:
        index = (starts[:, None] + np.arange(length)).reshape(-1) % PERIOD
        flat = _numbers_of(data, index)
    else:
        period = _period(msgspec.structs.replace(data, shape=()))
        flat = np.concatenate([p for s in starts.tolist() for p in _pieces(period, s, length)])
    wanted = [*at, *[None] * (len(data.shape) - len(at))]
    extents = zip(data.shape, wanted, strict=True)
    return flat.reshape([n if w is None else w.size for n, w in extents])


def _drawn(data: Drawn, at: At) -> Array:
    values = _repeated(data, at)
    if data.edges and has_edges(data.shape):
        _put_edges(values, data.shape, at)
    return values


def has_edges(shape: Sequence[int]) -> bool:
    """Whether rows of an array of this shape may be edge rows."""
    return len(shape) > 1 and shape[0] >= LEAST_ROWS


def edge_row(row: int, columns: Array) -> Array:
    """Row 1, 2 or 3 of an array with edges: zeros, exact powers of two, equal magnitudes.

    What rounds, ranks or divides by a row's size goes wrong there first.
    """
    if row == 1:
        return np.zeros(columns.shape)
    if row == 2:
        return 2.0 ** (columns % 8 - 4.0)
    return np.where(columns % 3 == 0, -0.5, 0.5)


def _put_edges(values: Array, shape: tuple[int, ...], at: At) -> None:
    first = at[0] if at else None
    rows = np.arange(shape[0]) if first is None else first
    columns, length = _runs(shape[1:], at[1:])
    columns = (columns[:, None] + np.arange(length)).reshape(-1)
    for place in np.flatnonzero((rows >= 1) & (rows < LEAST_ROWS)):
        edge = edge_row(int(rows[place]), columns)
        values[place] = edge.reshape(values.shape[1:]).astype(values.dtype)


def put_edges(values: Array) -> None:
    """Rows 1, 2 and 3 (first axis) become edge rows.

    A row beside them stays as it is, so nothing is put where there are fewer than four.
    """
    if has_edges(values.shape):
        _put_edges(values, values.shape, ())


def _scores(data: DrawnScores, at: At) -> Array:
    values = _drawn(scores_drawn(data), at)
    rows, columns = (
        np.arange(n) if w is None else w
        for n, w in zip(data.shape, [*at, None, None][:2], strict=True)
    )
    kind = rows % LEAST_ROWS
    values[kind == 1] = np.round(values[kind == 1] * SCORE_TIES) / SCORE_TIES
    values[kind == 2] = 0.0
    values[np.ix_(kind == 3, columns % NAN_EVERY == 0)] = np.nan
    visible = np.array(data.visible, np.int64)[rows]
    values[columns >= visible[:, None]] = -np.inf
    return values


def scores_drawn(data: DrawnScores) -> Drawn:
    """The numbers that scores are made of."""
    return Drawn(shape=data.shape, dtype="f32", seed=data.seed, low=-UNIT, high=UNIT)


def _selection(data: DrawnSelection, wanted: Array | None) -> Array:
    """One position of each of `count` equal stretches of what is visible."""
    rows = np.arange(data.shape[0]) if wanted is None else wanted
    places = np.arange(data.shape[1], dtype=np.int64)
    visible = np.array(data.visible, np.int64)[rows][:, None]
    count = np.minimum(visible, data.shape[1])
    fewer = 1 + bits24(data.seed, rows[:, None].astype(np.int64)) % np.maximum(count, 1)
    count = np.where((rows % 3 == 2)[:, None], np.minimum(count, fewer), count)
    parts = np.maximum(count, 1)
    low, high = places * visible // parts, (places + 1) * visible // parts
    index = rows[:, None] * data.shape[1] + places
    inside = bits24(data.seed + 1, index) % np.maximum(high - low, 1)
    return np.where(places < count, low + inside, -1).astype(np.int32)


def cache_of(data: DrawnCache, pages: Array | None = None) -> CacheBytes:
    """Pages of uniform rows, by default all."""
    form, width = LAYOUTS[data.layout], sum(data.row)
    wanted = np.arange(data.pages) if pages is None else pages
    tokens = np.arange(data.page_tokens)
    index = (wanted[:, None] * data.page_tokens + tokens).reshape(-1) % CACHE_PERIOD
    drawn = Drawn(shape=(CACHE_PERIOD, width), dtype="f32", seed=data.seed, low=-UNIT, high=UNIT)
    distinct, where = np.unique(index, return_inverse=True)
    parts = np.split(_drawn(drawn, (distinct,)), np.cumsum(data.row)[:-1], axis=1)
    first: Value = parts[0]
    if form.scale_block:
        first = quantise(parts[0], scale_fmt="fp32", dtype=form.dtypes[0], block=form.scale_block)
    few = -(-distinct.size // data.page_tokens)
    held = CacheBytes.zeros(data.layout, few, data.page_tokens, data.row)
    made = held.written([first, *parts[1:]], np.arange(distinct.size)).tokens()
    empty = CacheBytes.zeros(data.layout, wanted.size, data.page_tokens, data.row)
    return empty.of_tokens(made[where])
