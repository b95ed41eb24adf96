"""Small inputs of the kernels of fp8 formats: quantise, rotate, append. Runs nothing."""

from __future__ import annotations

import numpy as np
from plain_case import REAL, ROWS, Attributes, Case, normal

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
from lostwax.ir.contract.scale_layout import (
    FP8_BLOCK,
    FP8_ROW_BLOCKS,
)


def append() -> Case:
    """Rows in two parts; those behind the real ones name slots that would show."""
    case = Case(APPEND, ROWS, REAL, of_rows=("rows",), outputs=("cache_in",))
    case.give("rows", normal(ROWS, 12), "f32")
    case.give("slots", np.arange(ROWS), "i32")
    case.values["cache_in"] = Value((ROWS, 1, 12), "f32", parts=(12,))  # a page a slot
    return case


def append_fp8() -> Case:
    """The same to a cache of fp8 without scales."""
    case = append()
    case.values["cache_in"] = Value((ROWS, 1, 12), "f8E4M3FN", parts=(12,), layout="fp8_576")
    return case


def quantised(lowering: Lowering, x: str, width: int, *inner: str) -> Case:
    """Rows whose result is rounded to fp8; `inner` values have their shape."""
    node = "op" if lowering is QUANTISE else "quantised"
    attributes: Attributes = {(node, "scale_fmt"): "fp32", ("normed", "eps"): 1e-6}
    result = "op.out" if lowering is QUANTISE else "quantised"
    case = Case(lowering, ROWS, REAL, attributes, of_rows=(x,))
    case.give(x, normal(ROWS, width), "bf16")
    case.values |= {name: Value((ROWS, width), "bf16") for name in inner}
    case.values[result] = Value((ROWS, width), "f8E4M3FN", scale=FP8_ROW_BLOCKS)
    case.values[f"{result}:scale"] = Value((ROWS, -(-width // FP8_BLOCK)), "f32")
    case.outputs = (result, f"{result}:scale")
    return case


def silu_mul_quantise() -> Case:
    """A gated product, rounded to fp8."""
    case = quantised(SILU_MUL_QUANTISE, "gate", 140, "product")
    case.give("up", normal(140, ROWS).T, "bf16")
    case.of_rows = ("gate", "up")
    return case


def norm_quantise(lowering: Lowering) -> Case:
    """A norm, rounded to fp8; with the add it keeps the sum, and maybe the normed rows."""
    if lowering is RMS_NORM_QUANTISE:
        case = quantised(lowering, "x", 140, "normed")
    else:
        case = quantised(lowering, "residual", 140, "normed", "residual_out")
        case.give("delta", normal(140, ROWS).T, "bf16")
        case.values["sum"] = Value((ROWS, 140), "f32")
        case.of_rows = ("residual", "delta")
        kept = ("residual_out", "normed")
        case.outputs += kept if lowering is ADD_RMS_NORM_AND_QUANTISE else kept[:1]
    case.give("weight", normal(140), "bf16")
    return case


def hadamard() -> Case:
    """Two heads, rotated."""
    case = Case(HADAMARD, ROWS, REAL, of_rows=("x",), outputs=("op.out",))
    case.give("x", normal(ROWS, 2, 16), "bf16")
    case.values["op.out"] = Value((ROWS, 2, 16), "bf16")
    return case


def with_rope(case: Case, dim: int) -> Case:
    """The case with a table for its rotary embedding."""
    turned: Attributes = {("op", "offset"): 0, ("op", "dim"): dim, ("op", "interleaved"): False}
    case.attributes = {**case.attributes, **turned}
    table = normal(2, ROWS, dim)
    table[:, REAL:] = np.nan
    case.give("table", table, "f32")
    return case


def rope_hadamard_quantise() -> Case:
    """Heads of index queries."""
    case = with_rope(quantised(ROPE_HADAMARD_QUANTISE, "x", 128), 8)
    case.give("x", normal(ROWS, 2, 16), "bf16")
    case.values |= {name: Value((ROWS, 2, 16), "bf16") for name in ("op", "rotated")}
    case.values["quantised"] = Value((ROWS, 2, 16), "f8E4M3FN", scale=FP8_ROW_BLOCKS)
    case.values["quantised:scale"] = Value((ROWS, 2, 1), "f32")
    return case


def to_scaled_cache(case: Case, layout: str, *parts: int) -> Case:
    """The case with a cache of a page a slot, and slots that would show behind the real rows."""
    row_bytes = LAYOUTS[layout].row_bytes(parts)
    shape = (ROWS, row_bytes) if LAYOUTS[layout].is_paged else (ROWS, 1, row_bytes)
    case.values["cache_in"] = Value(shape, "u8", parts=parts, layout=layout)
    case.give("slots", np.arange(ROWS), "i32")
    case.outputs = ("cache_in",)
    return case


def append_scaled() -> Case:
    """Quantised rows with a part behind their scales."""
    case = Case(APPEND_SCALED, ROWS, REAL, of_rows=("rows.0", "rows.0:scale", "rows.1"))
    case.give("rows.0", normal(ROWS, 140), "f8E4M3FN", FP8_ROW_BLOCKS)
    case.give("rows.0:scale", np.abs(normal(ROWS, 2)), "f32")
    case.give("rows.1", normal(ROWS, 12), "f32")
    return to_scaled_cache(case, "fp8_656", 140, 12)


def append_latent() -> Case:
    """A latent with its rotary part."""
    case = with_rope(quantised(APPEND_LATENT, "x", 140, "normed"), 8)
    case.give("weight", normal(140), "bf16")
    case.give("k_pe", normal(ROWS, 8), "bf16")
    case.values["op"] = Value((ROWS, 8), "bf16")
    case.of_rows = ("x", "k_pe")
    return to_scaled_cache(case, "fp8_656", 140, 8)


def append_index_key(layout: str) -> Case:
    """An index key."""
    case = with_rope(quantised(APPEND_INDEX_KEY, "x", 16, "normed", "op", "rotated"), 8)
    case.give("weight", normal(16), "f32")
    case.give("bias", normal(16, 1)[:, 0], "f32")
    return to_scaled_cache(case, layout, 16)


def format_cases() -> dict[str, Case]:
    """Every one of them."""
    return {
        "append": append(),
        "append of fp8": append_fp8(),
        "append of quantised rows": append_scaled(),
        "append_latent": append_latent(),
        "append_index_key to pages": append_index_key("index_paged"),
        "append_index_key to rows": append_index_key("index_row"),
        "quantise": quantised(QUANTISE, "x", 140),
        "silu_mul_quantise": silu_mul_quantise(),
        "rms_norm_quantise": norm_quantise(RMS_NORM_QUANTISE),
        "add_rms_norm_quantise": norm_quantise(ADD_RMS_NORM_QUANTISE),
        "add_rms_norm_and_quantise": norm_quantise(ADD_RMS_NORM_AND_QUANTISE),
        "hadamard": hadamard(),
        "rope_hadamard_quantise": rope_hadamard_quantise(),
    }
