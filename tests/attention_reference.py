"""What the cases of `plain_attention_cases` want, in fp64 with the roundings of their types."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from plain_case import Array, Case

from lostwax.ir.contract.cache_layout import in_encoding
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.reference import core, dsa, mla, quant
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import Scaled, Value, round_to, widen

BYTES = ("fp8_656", "index_paged", "index_row")


def bf16(x: Array) -> Array:
    """As bf16 holds it."""
    return widen(round_to(x, "bf16"))


def turned(case: Case, node: str, table: str, x: Array) -> Array:
    """x [T, ..., D] turned by a table as the node says."""
    offset, dim = (int(case.attributes[node, name]) for name in ("offset", "dim"))
    interleaved = bool(case.attributes[node, "interleaved"])
    part = x[..., offset : offset + dim]
    pairs = (dim // 2, 2) if interleaved else (2, dim // 2)
    swapped = np.flip(part.reshape(*part.shape[:-1], *pairs), -1 if interleaved else -2)
    one = (len(x), *(1,) * (x.ndim - 2), dim)
    cosines, sines = (t[: len(x)].astype(np.float32).reshape(one) for t in case.data[table])
    out = x.copy()
    out[..., offset : offset + dim] = part * cosines + swapped.reshape(part.shape) * sines
    return bf16(out)


def in_fp8(case: Case, node: str, x: Array) -> Scaled:
    """x, quantised as the node says."""
    fmt = str(case.attributes[node, "scale_fmt"])
    return quant.quantise(x, scale_fmt=fmt, dtype=case.encoding, block=FP8_BLOCK)


def rows_in(case: Case, cache: str, found: Array) -> Array:
    """What the rows of a cache of a page a slot hold."""
    value = case.values[cache]
    if in_encoding(value.layout, None) not in BYTES:
        return found[: case.real, 0]
    held = CacheBytes.zeros(value.layout, case.rows, 1, value.parts)
    held = held.holding(found.astype(np.uint8).reshape(held.data.shape))
    return np.asarray(held.rows(np.arange(case.real)))


def as_stored(case: Case, cache: str, parts: list[Value]) -> Array:
    """What a cache holds of the rows' parts."""
    value = case.values[cache]
    if in_encoding(value.layout, None) in BYTES:
        before = CacheBytes.zeros(value.layout, case.rows, 1, value.parts)
        return np.asarray(before.written(parts, np.arange(case.real)).rows(np.arange(case.real)))
    return widen(round_to(np.concatenate([widen(part) for part in parts], -1), value.dtype))


def cached(
    case: Case, product: Array, norms: Callable[[str], Array], x_heads: Array | None = None
) -> dict[str, Array]:
    """The query's row, and what the caches hold."""
    q, k, latent, k_pe = np.split(bf16(product), (128, 256, 320), axis=1)
    q = bf16(core.rms_norm(q, norms("q_weight"), eps=1e-6))
    latent = bf16(core.rms_norm(latent, norms("latent_weight"), eps=1e-5))
    k_pe = turned(case, "k_pe_turned", "table", k_pe)
    k = bf16(core.layer_norm(k, norms("k_weight"), norms("k_bias"), eps=1e-4))
    keys: Value = turned(case, "k_turned", "index_table", k)
    name = case.lowering.name
    first: Value = latent
    if "_latent" in name:
        first = in_fp8(case, "latent_quantised", latent)
    if "_key" in name:
        keys = in_fp8(case, "k_quantised", bf16(dsa.hadamard(widen(keys))))
    out = {"q_normed": q}
    if "_query" in name:
        out = {"q_quantised": widen(in_fp8(case, "q_quantised", q))}
    if "heads" in case.outputs:
        x_heads = norms("x_heads")[: case.real] if x_heads is None else x_heads
        out["heads"] = np.asarray(quant.linear(x_heads, norms("w_heads")))
    latents = as_stored(case, "latents_in", [first, k_pe])
    return {**out, "latents_in": latents, "keys_in": as_stored(case, "keys_in", [keys])}


def queries(case: Case, product: Array) -> dict[str, Array]:
    """Both queries, turned."""
    heads, of_index = (case.values[name].shape[1:] for name in ("queries", "index"))
    q, index = np.split(bf16(product), (prod(heads),), axis=1)
    rows = len(q)
    found = {"q_turned": turned(case, "q_turned", "table", q.reshape(rows, *heads))}
    index = turned(case, "index_turned", "index_table", index.reshape(rows, *of_index))
    if "index_turned" in case.outputs:
        return found | {"index_turned": index}
    rotated = bf16(dsa.hadamard(index))
    return found | {"index_quantised": widen(in_fp8(case, "index_quantised", rotated))}


def from_residual(case: Case, given: Callable[[str], Value]) -> dict[str, Array]:
    """All that attention reads, from the residual add on."""
    real = slice(0, case.real)

    def plain(name: str) -> Array:
        return widen(given(name))

    total = plain("residual")[real] + plain("delta")[real]
    normed = bf16(core.rms_norm(total, plain("norm_weight"), eps=1e-6))
    found = cached(case, np.asarray(quant.linear(normed, given("w_q"))), plain, normed)
    if "w_index" in case.values:
        q = found.pop("q_normed")
        found |= queries(case, np.asarray(quant.linear(q, given("w_q_b"))))
    return found | {"residual_out": bf16(total)}


def attended(case: Case, given: Callable[[str], Value]) -> dict[str, Array]:
    """Attention, rounded to bf16 and then as its end has it."""
    names = ("q_nope", "q_pe", "kv_b", "cache_in", "selection", "positions")
    arrays = {name: np.asarray(given(name)) for name in (*names, "q_starts", "page_table")}
    for name in ("q_nope", "q_pe", "selection", "positions", "page_table"):
        arrays[name] = arrays[name][: case.real]
    arrays["q_starts"] = arrays["q_starts"][: case.real + 1]
    out = bf16(np.asarray(mla.attend(**arrays, scale=0.2)))
    if "quantised" in case.outputs:
        return {"quantised": widen(in_fp8(case, "quantised", out))}
    if "projected" in case.outputs:
        return {"projected": np.asarray(quant.linear(out, given("w_o")))}
    return {"op.out": out}
