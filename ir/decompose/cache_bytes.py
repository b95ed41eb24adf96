"""Rows of a cache in each byte layout, read and written in ONNX operators. Knows no op.

A plain layout's cache is [N, page_tokens, row] in its dtype, u8 where that is fp8; that of a
layout with scales, or with parts that lie apart, is [N, page_bytes] of u8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lostwax.ir.decompose.body import Array, Body, Value
from lostwax.ir.decompose.fp8 import from_bytes, to_bytes
from lostwax.ir.types import CacheType


def element_of(kind: CacheType) -> str:
    """The element type of the ONNX tensor that holds a cache."""
    element = kind.form.element
    return "u8" if element is None or element.startswith("f8") else element


def shape_of(kind: CacheType) -> tuple[int, ...]:
    """Its shape, without the pages."""
    tokens = kind.page_tokens.data
    if kind.form.element is None:
        return (tokens * kind.form.row_bytes(kind.row),)
    return (tokens, sum(kind.row))


def _places(kind: CacheType) -> Array:
    """[page_tokens, row_bytes]: where in its page each byte of a token lies."""
    token = np.arange(kind.page_tokens.data)[:, None]
    row_bytes, values = kind.form.row_bytes(kind.row), kind.row[0]
    byte = np.arange(row_bytes)
    if not kind.form.is_paged:
        return token * row_bytes + byte
    scales = row_bytes - values  # all values of the page come first, then all scales
    behind = kind.page_tokens.data * values + token * scales + byte - values
    return np.where(byte < values, token * values + byte, behind)


def _byte_index(b: Body, kind: CacheType, cache: Value, slots: Value) -> Value:
    """[*slots, row_bytes]: where in the whole cache each byte of the slots' rows lies."""
    tokens = kind.page_tokens.data
    if kind.form.parts_apart:
        widths = kind.form.part_bytes(kind.row)
        before = np.repeat(np.cumsum((0, *widths[:-1])), widths)  # bytes a token of earlier parts
        place = b.constant(np.concatenate([np.arange(w) for w in widths]), "i64")
        every = cache.extent(0) * tokens
        own = slots.at(-1) * b.constant(np.repeat(widths, widths), "i64") + place
        return b.constant(before, "i64") * every + own
    places = b.constant(_places(kind), "i64").gather(slots % tokens)
    return places + (slots // tokens * shape_of(kind)[0]).at(-1)


def _from_little_endian(b: Body, raw: Value, width: int) -> Value:
    """f32 whose high `width` bytes (4, or 2 for bf16) lie one after the other in u8 [..., n]."""
    wide = raw.to("i64")
    total = b.constant(0, "i64")
    for i in range(width):
        step = b("Slice", wide, b.ints(i), b.ints(2**31), b.ints(-1), b.ints(width))
        total = total + step * 256 ** (4 - width + i)
    signed = b.where(total >= 2**31, total - 2**32, total)
    return b("BitCast", signed.to("i32"), dtype="f32", to="f32")


def _to_little_endian(b: Body, x: Value, width: int) -> Value:
    """The high `width` bytes of f32 [T, n] as u8 [T, n * width]."""
    bits = b("BitCast", x, dtype="i32", to="i32").to("i64") % 2**32
    each = [(bits // 256 ** (4 - width + i) % 256).to("u8").at(-1) for i in range(width)]
    return b("Concat", *each, axis=-1).reshape(0, -1)


def _decode(b: Body, kind: CacheType, raw: Value) -> Value:
    """Rows [..., width] of their bytes: values times scales, then the bf16 part if there is one.

    Without scales all are bf16.
    """
    if not kind.form.scale_block:
        stored = _from_little_endian(b, raw, 2).to(b.compute)
        place = b.constant(np.argsort(np.array(kind.form.order(kind.row))), "i64")
        return stored.gather(place, axis=-1)
    values, behind = kind.row[0], kind.row[0] + 4 * kind.form.scales(kind.row)
    scales = _from_little_endian(b, raw.columns(values, behind), 4).to(b.compute)
    block = b.constant(np.arange(values) // kind.form.scale_block, "i64")
    first = from_bytes(b, raw.columns(0, values), kind.form.dtypes[0]) * scales.gather(
        block, axis=-1
    )
    if len(kind.row) == 1:
        return first
    rest = _from_little_endian(b, raw.columns(behind, 2**31), 2).to(b.compute)
    return b("Concat", first, rest, axis=-1)


def rows_at(b: Body, cache: Value, kind: CacheType, slots: Value) -> Value:
    """Cached rows at slots (page * page_tokens + place) in `compute`: [*slots, width]."""
    if kind.form.element is None:
        return _decode(b, kind, cache.reshape(-1).gather(_byte_index(b, kind, cache, slots)))
    rows = cache.reshape(-1, sum(kind.row)).gather(slots)
    if rows.dtype == "u8":
        return from_bytes(b, rows, kind.form.dtypes[0])
    return rows.to(b.compute)


def written(b: Body, cache: Value, kind: CacheType, parts: Sequence[Value], slots: Value) -> Value:
    """The cache with row t at slots[t]. Parts are [T, width]; the scales of a scaled layout's first
    part come behind it. Rows that share a slot: which of them stays is not defined.
    """
    form = kind.form
    if form.element is None:
        raw, rest = list[Value](), parts
        if form.scale_block:
            first, scales, *rest = parts
            raw = [to_bytes(b, first, form.dtypes[0]), _to_little_endian(b, scales.to("f32"), 4)]
        rest = [part.to("bf16").to("f32") for part in rest]
        if form.in_halves:
            order = b.constant(np.array(form.order(kind.row)), "i64")
            rest = [b("Concat", *rest, axis=-1).gather(order, axis=-1)]
        raw += [_to_little_endian(b, part, 2) for part in rest]
        row = b("Concat", *raw, axis=-1).reshape(-1)
        index = _byte_index(b, kind, cache, slots).reshape(-1)
        flat = b("ScatterElements", cache.reshape(-1), index, row)
    else:
        row = b("Concat", *(p.to(b.compute) for p in parts), axis=-1).to(form.element)
        row = to_bytes(b, row, form.element) if form.element.startswith("f8") else row
        flat = b("ScatterND", cache.reshape(-1, sum(kind.row)), slots.at(1), row)
    return b("Reshape", flat, b("Shape", cache, dtype="i64"))
