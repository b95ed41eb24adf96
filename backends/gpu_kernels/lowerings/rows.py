"""Rows chosen by number as one launch: embeddings, and what heads and drafts take of the hidden
state. Knows no device."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.launches import i32, real_rows, triton_launch
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.predicates import dtype, of_rows, rank
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.core import EmbedOp, GatherRowsOp
from lostwax.ir.op import LostwaxOp
from lostwax.ir.region import Region

_BLOCK_COLUMNS = 1024


def _lowering(name: str, op: type[LostwaxOp], table: str, rows: str) -> Lowering:
    """The lowering of an op that takes the rows `rows` of `table`."""

    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        num_rows, width = match.shape("op.out")
        source, out = match.view(table), match.view("op.out")
        launch = triton_launch(
            match,
            "lostwax.backends.gpu_kernels.rows:take_rows",
            {
                "table": source,
                "rows": match.view(rows),
                "out": out,
                "real_rows": real_rows(match),
                "table_stride": i32(source.strides[0]),
                "out_stride": i32(out.strides[0]),
                "WIDTH": i32(width),
            },
            {"BLOCK": _BLOCK_COLUMNS},
            grid=(num_rows, -(-width // _BLOCK_COLUMNS), 1),
            op=name,
            rows_of=("table_stride", "out_stride", "WIDTH"),
        )
        return (launch,)

    return Lowering(
        name=name,
        pattern=Region.single(op),
        emit=emit,
        when=dtype("op.out", "f32", "bf16") & rank("op.out", 2) & of_rows("op.out"),
        row_invariant=True,
    )


EMBED = _lowering("smxx_embed", EmbedOp, "table", "tokens")
GATHER_ROWS = _lowering("smxx_gather_rows", GatherRowsOp, "x", "rows")
