"""Rows written to caches of bytes, alone and with what makes them. Knows no device."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.fp8_rows import (
    as_bytes,
    block_of,
    blocks_of_two,
    one_dtype,
    place_of_rest,
    places,
    rounding,
    width_at_most,
)
from lostwax.backends.gpu_kernels.lowerings.hadamard import MAX_WIDTH, rotation, work_with_table
from lostwax.backends.gpu_kernels.lowerings.launches import (
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.rope import ROPE
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.predicates import Predicate, dtype, layout, of_rows
from lostwax.ir.contract.cache_layout import in_either_encoding
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.scaled_cache"
_FLOATS = ("f32", "bf16")
_MAX_WIDTH = 4096  # one program holds a row's values in registers


def _emit_append(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    values, *rest = match.views("rows")
    (scales,) = match.views("rows:scale")
    part, widths = (rest or [values])[0], match.parts("cache_in")
    rest_width = widths[1] if rest else 0
    return (
        triton_launch(
            match,
            f"{_KERNELS}:append_scaled",
            {
                "cache": match.view("cache_in"),
                "slots": match.view("slots"),
                "values": as_bytes(values),
                "scales": scales,
                "rest": part if rest else as_bytes(part),
                "real_rows": real_rows(match),
                "values_stride": i32(values.strides[0]),
                "scales_stride": i32(scales.strides[0]),
                "rest_stride": i32(part.strides[0]),
            },
            {
                "WIDTH": widths[0],
                "SCALES": scales.shape[1],
                "REST": rest_width,
                "BLOCK": next_power_of_two(widths[0]),
                "BLOCK_SCALES": next_power_of_two(scales.shape[1]),
                "BLOCK_REST": next_power_of_two(rest_width),
                **places(match),
                **place_of_rest(match),
            },
            grid=(match.bucket.tokens, 1, 1),
            op="smxx_append_scaled",
            num_warps=1,
            rows_of=("values_stride", "scales_stride", "rest_stride"),
        ),
    )


def _emit_latent(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    width, dim = match.parts("cache_in")
    x, k_pe, block = match.view("x"), match.view("k_pe"), block_of(match, "quantised")
    return (
        triton_launch(
            match,
            f"{_KERNELS}:append_latent",
            {
                "cache": match.view("cache_in"),
                "slots": match.view("slots"),
                "x": x,
                "weight": match.view("weight"),
                "k_pe": k_pe,
                "table": match.step("table"),
                "real_rows": real_rows(match),
                "num_rows": i32(match.bucket.tokens),
                "x_stride": i32(x.strides[0]),
                "k_pe_stride": i32(k_pe.strides[0]),
                "eps": f32(float(match.attr("normed", "eps"))),
            },
            {
                "WIDTH": width,
                "DIM": dim,
                "INTERLEAVED": int(match.attr("op", "interleaved")),
                "BLOCK": block,
                "GROUPS": next_power_of_two(-(-width // block)),
                "BLOCK_REST": next_power_of_two(dim),
                "BF16": int(match.dtype("x") == "bf16"),
                **rounding(match, "quantised", "quantised"),
                **places(match),
                **place_of_rest(match),
            },
            grid=(match.bucket.tokens, 1, 1),
            op="smxx_append_latent",
            num_warps=1,
            rows_of=("x_stride", "k_pe_stride"),
        ),
    )


def _emit_index_key(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    (width,), x = match.parts("cache_in"), match.view("x")
    scale, levels = rotation(width)
    return (
        triton_launch(
            match,
            f"{_KERNELS}:append_index_key",
            {
                "cache": match.view("cache_in"),
                "slots": match.view("slots"),
                "x": x,
                "weight": match.view("weight"),
                "bias": match.view("bias"),
                "table": match.step("table"),
                "real_rows": real_rows(match),
                "num_rows": i32(match.bucket.tokens),
                "x_stride": i32(x.strides[0]),
                "eps": f32(float(match.attr("normed", "eps"))),
                "scale": f32(scale),
            },
            {
                "WIDTH": width,
                "LEVELS": levels,
                "OFFSET": int(match.attr("op", "offset")),
                "DIM": int(match.attr("op", "dim")),
                "INTERLEAVED": int(match.attr("op", "interleaved")),
                "BLOCK": min(block_of(match, "quantised"), width),
                "BF16": int(match.dtype("x") == "bf16"),
                **rounding(match, "quantised", "quantised"),
                **places(match),
            },
            grid=(match.bucket.tokens, 1, 1),
            op="smxx_append_index_key",
            num_warps=1,
            rows_of=("x_stride",),
        ),
    )


def _turns_a_whole_part(match: Match) -> str | None:
    dim, offset = int(match.attr("op", "dim")), int(match.attr("op", "offset"))
    whole = match.shape("k_pe")[1] == dim and offset == 0
    return None if whole else f"rope turns {dim} elements from {offset} of k_pe, wants all of them"


APPEND_SCALED = Lowering(
    name="smxx_append_scaled",
    pattern=Region.single(AppendOp),
    emit=_emit_append,
    when=layout("cache_in", *in_either_encoding("fp8_656", "index_paged", "index_row"))
    & of_rows("slots"),
    row_invariant=True,
)

_APPEND = {"cache_in": "cache_in", "slots": "slots"}
_ROWS_WHEN = dtype("x", *_FLOATS) & dtype("weight", *_FLOATS) & blocks_of_two("quantised")

APPEND_LATENT = Lowering(
    name="smxx_append_latent",
    pattern=Region(
        {
            "normed": Node("core.rms_norm", {"x": "x", "weight": "weight"}),
            # `op`, as what prepares the rotation's table expects
            "op": Node("core.rope", {"x": "k_pe", "positions": "positions"}),
            "quantised": Node("quant.quantise", {"x": "normed"}),
            "append": Node("kv.append", {**_APPEND, "rows": ("quantised", "op")}),
        },
        outputs=("append",),
    ),
    emit=_emit_latent,
    when=ROPE.when
    & _ROWS_WHEN
    & layout("cache_in", *in_either_encoding("fp8_656"))
    & one_dtype("x", "normed", "k_pe", "op")
    & width_at_most("x", _MAX_WIDTH)
    & Predicate(_turns_a_whole_part),
    row_invariant=True,
    prepare=ROPE.prepare,
    work=work_with_table,
)

APPEND_INDEX_KEY = Lowering(
    name="smxx_append_index_key",
    pattern=Region(
        {
            "normed": Node("core.layer_norm", {"x": "x", "weight": "weight", "bias": "bias"}),
            # `op`, as what prepares the rotation's table expects
            "op": Node("core.rope", {"x": "normed", "positions": "positions"}),
            "rotated": Node("dsa.hadamard", {"x": "op"}),
            "quantised": Node("quant.quantise", {"x": "rotated"}),
            "append": Node("kv.append", {**_APPEND, "rows": ("quantised",)}),
        },
        outputs=("append",),
    ),
    emit=_emit_index_key,
    when=ROPE.when
    & _ROWS_WHEN
    & dtype("bias", *_FLOATS)
    & layout("cache_in", *in_either_encoding("index_paged", "index_row"))
    & one_dtype("x", "normed", "op", "rotated")
    & width_at_most("x", MAX_WIDTH),
    row_invariant=True,
    prepare=ROPE.prepare,
    work=work_with_table,
)
