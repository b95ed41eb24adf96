"""Rows rounded to fp8, alone and behind the gated product. Knows no device."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.fp8_rows import (
    as_bytes,
    block_of,
    blocks_of_two,
    head_strides,
    rounding,
)
from lostwax.backends.gpu_kernels.lowerings.launches import i32, real_rows, triton_launch
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.predicates import dtype, of_rows, rank
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.quant import QuantiseOp
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.quantise"
_BLOCK_ELEMENTS = 1024  # of one program: 8 a thread at 4 warps of 32
_FLOATS = ("f32", "bf16")


def _emit_quantise(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, *middle, width = match.shape("x")
    heads, block = middle[0] if middle else 1, block_of(match, "op.out")
    blocks, groups = -(-width // block), max(1, _BLOCK_ELEMENTS // block)
    x, values, scales = match.view("x"), match.view("op.out"), match.view("op.out:scale")
    strides = head_strides(x=x, values=values, scales=scales)
    return (
        triton_launch(
            match,
            f"{_KERNELS}:quantise",
            {
                "x": x,
                "values": as_bytes(values),
                "scales": scales,
                "real_rows": real_rows(match),
                **strides,
            },
            {
                "HEADS": heads,
                "WIDTH": width,
                "BLOCK": block,
                "BLOCK_GROUPS": groups,
                **rounding(match, "op", "op.out"),
            },
            grid=(rows, -(-heads * blocks // groups), 1),
            op="smxx_quantise",
            rows_of=tuple(strides),
        ),
    )


def _emit_silu_mul(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    (rows, width), block = match.shape("gate"), block_of(match, "quantised")
    groups = max(1, _BLOCK_ELEMENTS // block)
    gate, up = match.view("gate"), match.view("up")
    values, scales = match.view("quantised"), match.view("quantised:scale")
    return (
        triton_launch(
            match,
            f"{_KERNELS}:silu_mul_quantise",
            {
                "gate": gate,
                "up": up,
                "values": as_bytes(values),
                "scales": scales,
                "real_rows": real_rows(match),
                "gate_stride": i32(gate.strides[0]),
                "up_stride": i32(up.strides[0]),
                "values_stride": i32(values.strides[0]),
                "scales_stride": i32(scales.strides[0]),
            },
            {
                "WIDTH": width,
                "BLOCK": block,
                "BLOCK_GROUPS": groups,
                "BF16": int(match.dtype("product") == "bf16"),
                **rounding(match, "quantised", "quantised"),
            },
            grid=(rows, -(-width // (block * groups)), 1),
            op="smxx_silu_mul_quantise",
            rows_of=("gate_stride", "up_stride", "values_stride", "scales_stride"),
        ),
    )


QUANTISE = Lowering(
    name="smxx_quantise",
    pattern=Region.single(QuantiseOp),
    emit=_emit_quantise,
    when=dtype("x", *_FLOATS) & blocks_of_two("op.out") & of_rows("x"),
    row_invariant=True,
)

SILU_MUL_QUANTISE = Lowering(
    name="smxx_silu_mul_quantise",
    pattern=Region(
        {
            "product": Node("core.silu_mul", {"gate": "gate", "up": "up"}),
            "quantised": Node("quant.quantise", {"x": "product"}),
        },
        outputs=("quantised",),
    ),
    emit=_emit_silu_mul,
    when=dtype("gate", *_FLOATS)
    & dtype("up", *_FLOATS)
    & dtype("product", *_FLOATS)
    & rank("gate", 2)
    & blocks_of_two("quantised")
    & of_rows("gate"),
    row_invariant=True,
)
