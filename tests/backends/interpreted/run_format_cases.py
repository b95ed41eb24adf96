"""Runs the kernels of the fp8 formats in Triton's interpreter beside the reference.

A program of its own because Triton decides at import whether it interprets. Output: one JSON
object, case name to what differs, empty for nothing: bits of what is rounded from the case's
inputs; of what the kernel computes first, numbers beyond one step of fp8, or too many of those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import chain, product

import numpy as np
from plain_run import rounded, run

from lostwax.backends.gpu_kernels.lowerings.cache import APPEND
from lostwax.backends.gpu_kernels.lowerings.hadamard import HADAMARD, ROPE_HADAMARD_QUANTISE
from lostwax.backends.gpu_kernels.lowerings.norm_quantise import (
    ADD_RMS_NORM_AND_QUANTISE,
    ADD_RMS_NORM_QUANTISE,
    RMS_NORM_QUANTISE,
)
from lostwax.backends.gpu_kernels.lowerings.quantise import QUANTISE, SILU_MUL_QUANTISE
from lostwax.backends.gpu_kernels.lowerings.scaled_cache import (
    APPEND_INDEX_KEY,
    APPEND_LATENT,
    APPEND_SCALED,
)
from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import Value
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.program import Bucket
from lostwax.ir.contract.scale_layout import FP8_BLOCK, FP8_ROW_BLOCKS
from lostwax.ir.reference import core, dsa
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Scaled, round_to, widen
from lostwax.ir.reference.quant import quantise

Array = np.ndarray
FN, FNUZ = "f8E4M3FN", "f8E4M3FNUZ"
DTYPES, SCALE_FMTS = ("f32", "bf16"), ("fp32", "ue8m0")
INDEX_LAYOUTS = ("index_paged", "index_row")
PAGE = 4
EPS = 1e-6
SHARE = 0.01
"""Of numbers that a kernel rounds behind its own sums so many may be one step off."""


def bucket(rows: int) -> Bucket:
    """One row a request."""
    return Bucket(rows, rows, 1, rows)


def normal(seed: int, *shape: int) -> Array:
    """Normal numbers with zeros, small blocks and large ones: subnormal and saturated fp8."""
    rng = np.random.default_rng(seed)
    out = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 3, (*shape[:-1], 1))
    out[..., ::7] *= 2.0 ** rng.integers(-12, 1, out[..., ::7].shape)
    out[..., -1] = 0.0
    return out


def scaled_values(name: str, shape: tuple[int, ...], dtype: str, width: int) -> dict[str, Value]:
    """A result of quantising, and its scales."""
    blocks = -(-width // FP8_BLOCK)
    return {
        name: Value(shape, dtype, scale=FP8_ROW_BLOCKS),
        f"{name}:scale": Value((*shape[:-1], blocks), "f32"),
    }


def of_bits(found: Array, want: Array) -> str:
    """Whether every number is equal, NaN to NaN."""
    wrong = ~((found == want) | (np.isnan(found) & np.isnan(want)))
    return f"{int(wrong.sum())} of {wrong.size} differ" if wrong.any() else ""


def within_a_step(found: Array, want: Array) -> str:
    """Few numbers differ, and none by more than a step of fp8 (an eighth of it) or by what is small
    beside its row."""
    off = np.abs(found - want)
    floor = 1e-3 * np.abs(want).max(axis=-1, keepdims=True)
    if (off > np.maximum(np.abs(want) / 8, floor)).any() or not np.isfinite(found).all():
        return "a number is more than a step off"
    share = float((off > np.maximum(np.abs(want) / 100, floor)).mean())
    return f"{share:.1%} are off" if share > SHARE else ""


def quantise_case(shape: tuple[int, ...], x_dtype: str, dtype: str, scale_fmt: str) -> str:
    """Bits of values and scales; x lies in wider rows."""
    x = rounded(normal(sum(shape), *shape), x_dtype)
    x[0, ..., :8] = [np.nan, 1e-9, -0.0, 448.0, -1e4, 3e38, -1e-30, 1e-38]
    x = rounded(x, x_dtype)
    strides = (2 * math.prod(shape[1:]), *shape[2:], 1)
    values = {"x": Value(shape, x_dtype, strides)}
    values |= scaled_values("op.out", shape, dtype, shape[-1])
    found = run(QUANTISE, bucket(shape[0]), values, {("op", "scale_fmt"): scale_fmt}, {"x": x})
    with np.errstate(all="ignore"):
        want = quantise(x, scale_fmt=scale_fmt, dtype=dtype, block=FP8_BLOCK)
    return of_bits(found["op.out"], widen(want.values)) or of_bits(
        found["op.out:scale"], want.scales.astype(float)
    )


def widened(found: dict[str, Array], name: str) -> Array:
    """Values times scales."""
    return widen(Scaled(found[name], found[f"{name}:scale"], 1, FP8_BLOCK))


def silu_case(width: int, dtype: str) -> str:
    """The gated product, rounded and quantised."""
    gate, up = (
        rounded(np.random.default_rng(i).standard_normal((3, width)), dtype) for i in (0, 1)
    )
    values = {n: Value((3, width), dtype) for n in ("gate", "up", "product")}
    values |= scaled_values("quantised", (3, width), FN, width)
    attributes = {("quantised", "scale_fmt"): "ue8m0"}
    found = run(SILU_MUL_QUANTISE, bucket(3), values, attributes, {"gate": gate, "up": up})
    product = round_to(core.silu_mul(gate, up), dtype)
    want = quantise(product, scale_fmt="ue8m0", dtype=FN, block=FP8_BLOCK)
    return within_a_step(widened(found, "quantised"), widen(want))


def norm_case(lowering: Lowering, width: int, dtype: str, scale_fmt: str) -> str:
    """RMS norms, alone or behind the residual add, that are quantised."""
    rows, rng = 3, np.random.default_rng(width)
    x, y = (rounded(rng.standard_normal((rows, width)), dtype) for _ in range(2))
    w = rounded(1 + 0.1 * rng.standard_normal(width), dtype)
    dense = Value((rows, width), dtype)
    values = {"weight": Value((width,), dtype), "normed": dense, "residual_out": dense}
    values |= {"x": Value((rows, width), dtype, (width + 3, 1)), "sum": Value((rows, width), "f32")}
    values |= {"residual": dense, "delta": dense}
    values |= scaled_values("quantised", (rows, width), FN, width)
    attributes = {("normed", "eps"): EPS, ("quantised", "scale_fmt"): scale_fmt}
    data = {"x": x, "residual": x, "delta": y, "weight": w}
    found = run(lowering, bucket(rows), values, attributes, data)
    total = x if lowering is RMS_NORM_QUANTISE else x + y
    normed = round_to(core.rms_norm(total, w, eps=EPS), dtype)
    want = quantise(normed, scale_fmt=scale_fmt, dtype=FN, block=FP8_BLOCK)
    wrong = within_a_step(widened(found, "quantised"), widen(want))
    if lowering is not RMS_NORM_QUANTISE:
        wrong = wrong or of_bits(found["residual_out"], widen(round_to(total, dtype)))
    if lowering is ADD_RMS_NORM_AND_QUANTISE:
        wrong = wrong or within_a_step(found["normed"], widen(normed))
    return wrong


def hadamard_case(shape: tuple[int, ...], dtype: str) -> str:
    """Signed sums, rounded once."""
    x = rounded(normal(sum(shape), *shape), dtype)
    values = {"x": Value(shape, dtype), "op.out": Value(shape, dtype)}
    found = run(HADAMARD, bucket(shape[0]), values, {}, {"x": x})["op.out"]
    want = dsa.hadamard(x)
    bound = 2.0**-8 if dtype == "bf16" else 1e-6
    off = np.abs(found - want).max(axis=-1) / np.sqrt((want * want).mean(axis=-1))
    return "" if float(off.max()) < 8 * bound else f"off by {float(off.max()):.1e}"


def rope_attributes(dim: int, offset: int, interleaved: bool) -> dict[tuple[str, str], int | bool]:
    """Where it turns."""
    return {("op", "offset"): offset, ("op", "dim"): dim, ("op", "interleaved"): interleaved}


def rope_table(rows: int, dim: int, interleaved: bool) -> Array:
    """[2, rows, dim]: cosines, and sines so signed that x cos + swapped(x) sin turns."""
    angles = np.random.default_rng(rows).uniform(0, 6, (rows, dim // 2))
    axis = -1 if interleaved else -2
    cosines = np.stack([np.cos(angles)] * 2, axis).reshape(rows, dim)
    sines = np.stack([-np.sin(angles), np.sin(angles)], axis).reshape(rows, dim)
    return np.stack([cosines, sines]).astype(np.float32)


def turned(x: Array, table: Array, offset: int, interleaved: bool) -> Array:
    """x [T, ..., D] with dim elements from `offset` turned by the table."""
    dim = table.shape[-1]
    part = x[..., offset : offset + dim]
    pairs = (dim // 2, 2) if interleaved else (2, dim // 2)
    swapped = np.flip(part.reshape(*part.shape[:-1], *pairs), -1 if interleaved else -2)
    cosines, sines = (t.reshape(len(x), *(1,) * (x.ndim - 2), dim).astype(float) for t in table)
    out = x.copy()
    out[..., offset : offset + dim] = part * cosines + swapped.reshape(part.shape) * sines
    return out


def rope_case(shape: tuple[int, ...], dim: int, offset: int, interleaved: bool, dtype: str) -> str:
    """Rotary embedding, rotation and fp8 of index queries."""
    x = rounded(np.random.default_rng(dim).standard_normal(shape), dtype)
    table = rope_table(shape[0], dim, interleaved)
    values = {n: Value(shape, dtype) for n in ("x", "op", "rotated")}
    values |= {"table": Value(table.shape, "f32")}
    values |= scaled_values("quantised", shape, FN, shape[-1])
    attributes = {("quantised", "scale_fmt"): "ue8m0"} | rope_attributes(dim, offset, interleaved)
    data = {"x": x, "table": table}
    found = run(ROPE_HADAMARD_QUANTISE, bucket(shape[0]), values, attributes, data)
    y = round_to(turned(x, table, offset, interleaved), dtype)
    z = round_to(dsa.hadamard(y), dtype)
    want = quantise(z, scale_fmt="ue8m0", dtype=FN, block=FP8_BLOCK)
    return within_a_step(widened(found, "quantised"), widen(want))


def empty(layout: str, pages: int, row: tuple[int, ...]) -> tuple[CacheBytes, Value]:
    """A cache of bytes that differ, and the value that it is."""
    form = LAYOUTS[layout]
    cache = CacheBytes.zeros(layout, pages, PAGE, row)
    cache = cache.holding(np.random.default_rng(0).integers(0, 99, cache.data.shape, np.uint8))
    row_bytes = form.row_bytes(row)
    shape = (pages, PAGE * row_bytes) if form.is_paged else (pages, PAGE, row_bytes)
    return cache, Value(shape, "u8", parts=row, layout=layout)


SLOTS = np.array([5, 11, 7], np.int32)


def append_case(layout: str, row: tuple[int, ...]) -> str:
    """Bytes of quantised rows; every other byte stays."""
    before, value = empty(layout, 3, row)
    x = quantise(normal(1, 3, row[0]), scale_fmt="fp32", dtype=FN, block=FP8_BLOCK)
    values = {"cache_in": value, "slots": Value((3,), "i32")}
    values["rows.0"] = Value(x.shape, FN, scale=FP8_ROW_BLOCKS)
    values["rows.0:scale"] = Value(x.scales.shape, "f32")
    data = {"cache_in": before.data.reshape(value.shape), "slots": SLOTS}
    data |= {"rows.0": widen(x.values), "rows.0:scale": x.scales}
    rest = [rounded(normal(2, 3, width), "f32") for width in row[1:]]
    for part in rest:
        values["rows.1"], data["rows.1"] = Value(part.shape, "f32"), part
    found = run(APPEND_SCALED, bucket(3), values, {}, data)["cache_in"]
    want = before.written([x, *rest], SLOTS)
    return of_bits(found.reshape(want.data.shape), want.data.astype(float))


def append_plain_case(dtype: str) -> str:
    """Two parts rounded to fp8 without scales, saturating."""
    first, second = normal(3, 3, 12), normal(4, 3, 6)
    first[1, :4] = [1e4, -449.0, 2.0**-9, 0.7 * 2.0**-9]
    first, second = rounded(first, dtype), rounded(second, dtype)
    values = {"slots": Value((3,), "i32"), "rows.0": Value((3, 12), dtype)}
    values |= {"rows.1": Value((3, 6), dtype)}
    values["cache_in"] = Value((3, PAGE, 18), FN, parts=(12, 6), layout="fp8_576")
    before = np.full((3, PAGE, 18), 2.0)
    data = {"slots": SLOTS, "rows.0": first, "rows.1": second, "cache_in": before}
    found = run(APPEND, bucket(3), values, {}, data)["cache_in"]
    want = before.reshape(-1, 18).copy()
    want[SLOTS] = widen(round_to(np.concatenate([first, second], -1), FN))
    return of_bits(found.reshape(-1, 18), want)


def written_rows(found: Array, want: CacheBytes, before: CacheBytes) -> str:
    """The rows at the slots are near, all other bytes as before."""
    got = want.holding(found.astype(np.uint8))
    others = np.setdiff1d(np.arange(3 * PAGE), SLOTS)
    if not np.array_equal(got.tokens()[others], before.tokens()[others]):
        return "a row outside the slots was written"
    return within_a_step(got.rows(SLOTS), want.rows(SLOTS))


def latent_case(width: int, dim: int, scale_fmt: str, dtype: str) -> str:
    """Norm, rotary embedding, fp8 and append of a latent."""
    before, value = empty("fp8_656", 3, (width, dim))
    rng, table = np.random.default_rng(width), rope_table(3, dim, interleaved=True)
    x, k_pe = (rounded(rng.standard_normal((3, n)), dtype) for n in (width, dim))
    w = rounded(1 + 0.1 * rng.standard_normal(width), dtype)
    values = {"cache_in": value, "slots": Value((3,), "i32"), "table": Value(table.shape, "f32")}
    wide = (width + dim, 1)
    values |= {"x": Value((3, width), dtype, wide), "k_pe": Value((3, dim), dtype, wide)}
    values |= {"weight": Value((width,), dtype), "normed": Value((3, width), dtype)}
    values |= {"op": Value((3, dim), dtype), **scaled_values("quantised", (3, width), FN, width)}
    attributes = {("normed", "eps"): EPS, ("quantised", "scale_fmt"): scale_fmt}
    attributes |= rope_attributes(dim, 0, interleaved=True)
    data = {"cache_in": before.data.reshape(value.shape), "slots": SLOTS, "table": table}
    data |= {"x": x, "k_pe": k_pe, "weight": w}
    found = run(APPEND_LATENT, bucket(3), values, attributes, data)["cache_in"]
    normed = round_to(core.rms_norm(x, w, eps=EPS), dtype)
    first = quantise(normed, scale_fmt=scale_fmt, dtype=FN, block=FP8_BLOCK)
    second = round_to(turned(k_pe, table, 0, interleaved=True), dtype)
    return written_rows(found, before.written([first, second], SLOTS), before)


def index_key_case(layout: str, width: int, dim: int, dtype: str) -> str:
    """Norm, rotary embedding, rotation, fp8 and append of an index key."""
    before, value = empty(layout, 3, (width,))
    rng, table = np.random.default_rng(width), rope_table(3, dim, interleaved=False)
    x = rounded(1 + rng.standard_normal((3, width)), dtype)
    w, b = (rng.standard_normal(width).astype(np.float32) for _ in range(2))
    values = {"cache_in": value, "slots": Value((3,), "i32"), "table": Value(table.shape, "f32")}
    values |= {n: Value((3, width), dtype) for n in ("x", "normed", "op", "rotated")}
    values |= {"weight": Value((width,), "f32"), "bias": Value((width,), "f32")}
    values |= scaled_values("quantised", (3, width), FN, width)
    attributes = {("normed", "eps"): EPS, ("quantised", "scale_fmt"): "ue8m0"}
    attributes |= rope_attributes(dim, 0, interleaved=False)
    data = {"cache_in": before.data.reshape(value.shape), "slots": SLOTS, "table": table}
    data |= {"x": x, "weight": w, "bias": b}
    found = run(APPEND_INDEX_KEY, bucket(3), values, attributes, data)["cache_in"]
    normed = round_to(core.layer_norm(x, w, b, eps=EPS), dtype)
    y = round_to(turned(widen(normed), table, 0, interleaved=False), dtype)
    z = round_to(dsa.hadamard(y), dtype)
    want = before.written([quantise(z, scale_fmt="ue8m0", dtype=FN, block=FP8_BLOCK)], SLOTS)
    return written_rows(found, want, before)


def every_code(dtype: str) -> str:
    """Each number of the encoding, each middle between two, and their neighbours in f32."""
    codes = np.arange(256, dtype=np.uint8).view(NUMPY_DTYPES[dtype]).astype(np.float32)
    finite = np.unique(codes[np.isfinite(codes)])
    middles = (finite[1:] + finite[:-1]) / 2
    near = np.concatenate([finite, middles])
    every = np.concatenate([near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)])
    largest = float(finite.max())
    every = every[np.abs(every) <= largest]
    x = np.resize(every, (-(-every.size // 127), 127)).astype(np.float32)
    x = np.concatenate([np.full((len(x), 1), largest, np.float32), x], axis=1)  # the scale is 1
    values = {"x": Value(x.shape, "f32")} | scaled_values("op.out", x.shape, dtype, 128)
    found = run(QUANTISE, bucket(len(x)), values, {("op", "scale_fmt"): "fp32"}, {"x": x})
    want = widen(round_to(x, dtype))
    same_zero = np.signbit(found["op.out"]) == np.signbit(want)
    return of_bits(found["op.out"], want) or ("" if same_zero.all() else "a zero has another sign")


def quantise_cases() -> Iterator[tuple[str, str]]:
    """Both encodings and roundings of scales, at odd sizes and at sizes of the model."""
    shapes = ((3, 300), (2, 5, 64), (2, 3, 256), (1, 7168))
    for dtype in (FN, FNUZ):
        yield f"every number of {dtype}", every_code(dtype)
        for scale_fmt, shape, x_dtype in product(SCALE_FMTS, shapes, DTYPES):
            name = f"quantise {shape} {x_dtype} to {dtype} {scale_fmt}"
            yield name, quantise_case(shape, x_dtype, dtype, scale_fmt)


def norm_cases() -> Iterator[tuple[str, str]]:
    """Norms and gated products."""
    norms = (RMS_NORM_QUANTISE, ADD_RMS_NORM_QUANTISE, ADD_RMS_NORM_AND_QUANTISE)
    for dtype, scale_fmt, width, lowering in product(DTYPES, SCALE_FMTS, (300, 1536), norms):
        name = f"{lowering.name} {width} {dtype} {scale_fmt}"
        yield name, norm_case(lowering, width, dtype, scale_fmt)
    for dtype, width in product(DTYPES, (300, 2048)):
        yield f"silu_mul {width} {dtype}", silu_case(width, dtype)


def hadamard_cases() -> Iterator[tuple[str, str]]:
    """The rotation alone and of index queries."""
    for dtype in DTYPES:
        for shape in ((3, 128), (2, 5, 64), (2, 64, 128), (1, 256), (2, 2)):
            yield f"hadamard {shape} {dtype}", hadamard_case(shape, dtype)
        yield f"index queries {dtype}", rope_case((2, 64, 128), 64, 0, False, dtype)
        yield f"index queries of 64 {dtype}", rope_case((3, 3, 64), 32, 16, True, dtype)
        yield f"index queries of 256 {dtype}", rope_case((3, 256), 64, 0, False, dtype)


def append_cases() -> Iterator[tuple[str, str]]:
    """Every layout, alone and with what makes its rows."""
    for dtype in DTYPES:
        yield f"append fp8_576 {dtype}", append_plain_case(dtype)
        yield f"latent of 320 {dtype}", latent_case(320, 24, "fp32", dtype)
        for scale_fmt in SCALE_FMTS:
            yield f"latent {dtype} {scale_fmt}", latent_case(512, 64, scale_fmt, dtype)
        for layout, width in product(INDEX_LAYOUTS, (128, 64, 256)):
            name = f"index key of {width} {layout} {dtype}"
            yield name, index_key_case(layout, width, 32, dtype)
    for row in ((512, 64), (320, 24)):
        yield f"append fp8_656 {row}", append_case("fp8_656", row)
    for layout, width in product(INDEX_LAYOUTS, (128, 64)):
        yield f"append {layout} of {width}", append_case(layout, (width,))


def main() -> None:
    """Run every case and print what differs."""
    families = (quantise_cases(), norm_cases(), hadamard_cases(), append_cases())
    print(json.dumps(dict(chain(*families))))


if __name__ == "__main__":
    main()
