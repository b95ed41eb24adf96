"""The rotary embedding over a table that a kernel of its own makes once a step. Knows no device."""

from __future__ import annotations

import struct
from math import log2

from lostwax.backends.gpu_kernels.lowerings.launches import (
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.kernels.rope import correction_range
from lostwax.backends.portable.lowerings.prepared import rope_consts
from lostwax.backends.predicates import dtype, fact, of_rows
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.step_kernel import Prepared, StepKernel
from lostwax.ir.dialects.core import RopeOp
from lostwax.ir.region import Region

_BLOCK_ELEMENTS = 2048  # of one program: 16 a thread at 4 warps of 32


_TABLE = {
    "positions": "*i32", "table": "*fp32", "real_rows": "*i32", "num_rows": "i32",
}  # fmt: skip
_BLEND = ("dim", "theta", "original_len", "beta_fast", "beta_slow")


def _bits(number: float) -> int:
    """An f64 as a whole number, which is what kernels can be compiled for."""
    return struct.unpack("<q", struct.pack("<d", number))[0]


def table_kernel(match: Match, node: str, name: str) -> StepKernel:
    """The table `name` of the rope `node`: f32 [2, T, dim], cosines and signed sines."""
    consts = rope_consts(match, node)
    tokens, dim = match.bucket.tokens, int(consts["dim"])
    factor, low, high = float(consts["factor"]), 0, 1
    if factor != 1:
        theta, *others = (float(consts[name]) for name in _BLEND[1:])
        low, high = correction_range(dim, theta, int(others[0]), others[1], others[2])
    constants = {
        "DIM": dim,
        "INTERLEAVED": int(consts["interleaved"]),
        "LOG2_THETA": _bits(log2(float(consts["theta"]))),
        "INVERSE_FACTOR": _bits(1 / factor),
        "INVERSE_SPAN": _bits(1 / max(high - low, 1e-3)),
        "MAGNITUDE": _bits(float(consts["magnitude"])),
        "LOW": low,
        "BLOCK": next_power_of_two(dim // 2),
    }
    source = KernelSource(
        language="triton",
        path="lostwax.backends.gpu_kernels.rope",
        symbol="rope_table",
        signature=_TABLE | dict.fromkeys(constants, "constexpr"),
        constants=constants,
        num_warps=1,
    )
    return StepKernel(
        source=source,
        arguments=("positions", name, "num_rows", i32(tokens)),
        outputs=((name, "f32", (2, tokens, dim)),),
        grid=(tokens, 1, 1),
    )


def _table(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
    return (table_kernel(match, "op", "table"),)


def _head_stride(view: View) -> int:
    return view.strides[1] if len(view.shape) == 3 else 0


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, *middle, width = match.shape("x")
    heads = middle[0] if middle else 1
    x, out = match.view("x"), match.view("op.out")
    block_width = next_power_of_two(width)
    block_heads = min(next_power_of_two(heads), max(1, _BLOCK_ELEMENTS // block_width))
    return (
        triton_launch(
            match,
            "lostwax.backends.gpu_kernels.rope:rotate",
            {
                "x": x,
                "table": match.step("table"),
                "out": out,
                "real_rows": real_rows(match),
                "num_rows": i32(rows),
                "x_row_stride": i32(x.strides[0]),
                "x_head_stride": i32(_head_stride(x)),
                "out_row_stride": i32(out.strides[0]),
                "out_head_stride": i32(_head_stride(out)),
            },
            {
                "HEADS": heads,
                "WIDTH": width,
                "OFFSET": int(match.attr("op", "offset")),
                "DIM": int(match.attr("op", "dim")),
                "INTERLEAVED": int(match.attr("op", "interleaved")),
                "BLOCK_HEADS": block_heads,
                "BLOCK_WIDTH": block_width,
            },
            grid=(rows, -(-heads // block_heads), 1),
            op="smxx_rope_table",
        ),
    )


ROPE = Lowering(
    name="smxx_rope_table",
    pattern=Region.single(RopeOp),
    emit=_emit,
    when=dtype("x", "f32", "bf16") & of_rows("x") & fact("dtypes", "f64"),
    row_invariant=True,
    prepare=_table,
)
