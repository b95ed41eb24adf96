"""The rotary embedding as one launch over a table made once a step. Knows no device."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.launches import (
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.prepared import rope_table
from lostwax.backends.predicates import dtype, of_rows
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.dialects.core import RopeOp
from lostwax.ir.region import Region

_BLOCK_ELEMENTS = 2048  # of one program: 16 a thread at 4 warps of 32


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
    when=dtype("x", "f32", "bf16") & of_rows("x"),
    row_invariant=True,
    prepare=rope_table,
)
