"""The Hadamard rotation, alone and between the rotary embedding and fp8. Knows no device."""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends.gpu_kernels.lowerings.fp8_rows import (
    as_bytes,
    block_of,
    blocks_of_two,
    head_strides,
    one_dtype,
    rounding,
    width_at_most,
)
from lostwax.backends.gpu_kernels.lowerings.launches import (
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.rope import ROPE
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.predicates import dtype, of_rows
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.dsa import HadamardOp
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.hadamard"
_BLOCK_ELEMENTS = 1024  # of one program: 8 a thread at 4 warps of 32
MAX_WIDTH = 256  # a row's butterflies stay in one warp's registers
_FLOATS = ("f32", "bf16")


def rotation(width: int) -> tuple[float, int]:
    """The factor of the signed sums, and how often they are doubled."""
    return width**-0.5, width.bit_length() - 1


def work_with_table(match: Match, knobs: Knobs) -> Work:
    """The region's own, and the rotary table that is read beside its operands."""
    base, dim = match.work(), int(match.attr("op", "dim"))
    return replace(base, num_bytes=base.num_bytes + 2 * 4 * dim * match.bucket.tokens)


def _heads(match: Match) -> tuple[int, int]:
    """Heads of a row, and of a program."""
    _, *middle, width = match.shape("x")
    heads = middle[0] if middle else 1
    return heads, min(next_power_of_two(heads), max(1, _BLOCK_ELEMENTS // width))


def _num_warps(elements: int) -> int:
    """8 elements a thread where a program has so many."""
    return max(1, min(4, elements // 256))


def _emit_hadamard(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, width = match.shape("x")[0], match.shape("x")[-1]
    heads, block_heads = _heads(match)
    scale, levels = rotation(width)
    x, out = match.view("x"), match.view("op.out")
    strides = head_strides(x=x, out=out)
    return (
        triton_launch(
            match,
            f"{_KERNELS}:hadamard",
            {"x": x, "out": out, "real_rows": real_rows(match), **strides, "scale": f32(scale)},
            {
                "HEADS": heads,
                "WIDTH": width,
                "LEVELS": levels,
                "BLOCK_HEADS": block_heads,
                "BF16": int(match.dtype("op.out") == "bf16"),
            },
            grid=(rows, -(-heads // block_heads), 1),
            op="smxx_hadamard",
            num_warps=_num_warps(block_heads * width),
            rows_of=tuple(strides),
        ),
    )


def _emit_rope(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, width = match.shape("x")[0], match.shape("x")[-1]
    heads, block_heads = _heads(match)
    scale, levels = rotation(width)
    x, values = match.view("x"), match.view("quantised")
    scales = match.view("quantised:scale")
    strides = head_strides(x=x, values=values, scales=scales)
    return (
        triton_launch(
            match,
            f"{_KERNELS}:rope_hadamard_quantise",
            {
                "x": x,
                "table": match.step("table"),
                "values": as_bytes(values),
                "scales": scales,
                "real_rows": real_rows(match),
                "num_rows": i32(rows),
                **strides,
                "scale": f32(scale),
            },
            {
                "HEADS": heads,
                "WIDTH": width,
                "LEVELS": levels,
                "OFFSET": int(match.attr("op", "offset")),
                "DIM": int(match.attr("op", "dim")),
                "INTERLEAVED": int(match.attr("op", "interleaved")),
                "BLOCK": min(block_of(match, "quantised"), width),
                "BLOCK_HEADS": block_heads,
                "BF16": int(match.dtype("x") == "bf16"),
                **rounding(match, "quantised", "quantised"),
            },
            grid=(rows, -(-heads // block_heads), 1),
            op="smxx_rope_hadamard_quantise",
            num_warps=_num_warps(block_heads * width),
            rows_of=tuple(strides),
        ),
    )


HADAMARD = Lowering(
    name="smxx_hadamard",
    pattern=Region.single(HadamardOp),
    emit=_emit_hadamard,
    when=dtype("x", *_FLOATS)
    & dtype("op.out", *_FLOATS)
    & width_at_most("x", MAX_WIDTH)
    & of_rows("x"),
    row_invariant=True,
)

ROPE_HADAMARD_QUANTISE = Lowering(
    name="smxx_rope_hadamard_quantise",
    pattern=Region(
        {
            # `op`, as what prepares the rotation's table expects
            "op": Node("core.rope", {"x": "x", "positions": "positions"}),
            "rotated": Node("dsa.hadamard", {"x": "op"}),
            "quantised": Node("quant.quantise", {"x": "rotated"}),
        },
        outputs=("quantised",),
    ),
    emit=_emit_rope,
    when=ROPE.when
    & one_dtype("x", "op", "rotated")
    & width_at_most("x", MAX_WIDTH)
    & blocks_of_two("quantised"),
    row_invariant=True,
    prepare=ROPE.prepare,
    work=work_with_table,
)
