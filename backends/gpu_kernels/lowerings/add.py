"""A sum of two rows as one launch. Knows no device."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.launches import i32, real_rows, triton_launch
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.predicates import dtype, of_rows, rank
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.core import AddOp
from lostwax.ir.region import Region

_BLOCK_COLUMNS = 1024


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, width = match.shape("op.out")
    a, b, out = match.view("a"), match.view("b"), match.view("op.out")
    launch = triton_launch(
        match,
        "lostwax.backends.gpu_kernels.elementwise:add",
        {
            "a": a,
            "b": b,
            "out": out,
            "real_rows": real_rows(match),
            "a_stride": i32(a.strides[0]),
            "b_stride": i32(b.strides[0]),
            "out_stride": i32(out.strides[0]),
            "WIDTH": i32(width),
        },
        {"BLOCK": _BLOCK_COLUMNS},
        grid=(rows, -(-width // _BLOCK_COLUMNS), 1),
        op="smxx_add",
        rows_of=("a_stride", "b_stride", "out_stride", "WIDTH"),
    )
    return (launch,)


_FLOATS = ("f32", "bf16")

ADD = Lowering(
    name="smxx_add",
    pattern=Region.single(AddOp),
    emit=_emit,
    when=dtype("a", *_FLOATS)
    & dtype("b", *_FLOATS)
    & dtype("op.out", *_FLOATS)
    & rank("op.out", 2)
    & of_rows("op.out"),
    row_invariant=True,
)
