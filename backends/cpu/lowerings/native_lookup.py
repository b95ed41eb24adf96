"""Rows that are looked up, put side by side, cast or cleared. Native kernels."""

from __future__ import annotations

from xdsl.irdl import IRDLOperation

from lostwax.backends import predicates as P
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    alike,
    in_a_list,
    native,
    num_rows,
    of_types,
    symbol,
)
from lostwax.backends.lowering import Lowering, Match
from lostwax.backends.portable.lowerings.calls import Emit
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import KernelLaunch, View
from lostwax.ir.dialects.core import CastOp, ConcatOp, EmbedOp, GatherRowsOp, ZerosLikeOp
from lostwax.ir.region import Region


def _rows(
    name: str, match: Match, kernel: str, x: View, which: View | None, out: View
) -> KernelLaunch:
    return native(
        match, name, kernel, x, which, out, num_rows(match), out.shape[0], out.shape[1],
        x.shape[0], x.strides[0], out.strides[0],
    )  # fmt: skip


def _taking(name: str, x: str, which: str | None) -> Emit:
    """Rows of x by the numbers of `which`, or in their order."""

    def emit(match: Match, knobs: object) -> tuple[KernelLaunch, ...]:
        numbers = match.view(which) if which else None
        kernel = symbol("take_rows", match, f"{x} op.out")
        return (_rows(name, match, kernel, match.view(x), numbers, match.view("op.out")),)

    return emit


def _emit_concat(match: Match, knobs: object) -> tuple[KernelLaunch, ...]:
    out, before, launches = match.view("op.out"), 0, list[KernelLaunch]()
    for part in match.views("parts"):
        width = part.shape[1]
        place = View(
            space=out.space,
            name=out.name,
            dtype=out.dtype,
            shape=(out.shape[0], width),
            strides=out.strides,
            offset=out.offset + before * DTYPE_BYTES[out.dtype],
        )
        kernel = f"take_rows_{out.dtype}"
        launches.append(_rows("cpu_native_concat", match, kernel, part, None, place))
        before += width
    return tuple(launches)


def _emit_zeros(match: Match, knobs: object) -> tuple[KernelLaunch, ...]:
    out = match.view("op.out")
    kernel = symbol("clear_rows", match, "op.out")
    return (
        native(
            match, "cpu_native_zeros_like", kernel, out, num_rows(match), *match.shape("op.out"),
            out.strides[0],
        ),
    )  # fmt: skip


def _lowering(name: str, op: type[IRDLOperation], emit: Emit, when: Predicate) -> Lowering:
    return Lowering(
        name=name,
        pattern=Region.single(op),
        emit=emit,
        when=ON_HOST & when & P.rank("op.out", 2) & P.of_rows("op.out"),
        row_invariant=True,
        work=lambda match, knobs: in_a_list(match.work()),
    )


NATIVE_LOOKUP = (
    _lowering(
        "cpu_native_embed",
        EmbedOp,
        _taking("cpu_native_embed", "table", "tokens"),
        alike("table op.out"),
    ),
    _lowering(
        "cpu_native_gather_rows",
        GatherRowsOp,
        _taking("cpu_native_gather_rows", "x", "rows"),
        alike("x op.out"),
    ),
    _lowering(
        "cpu_native_cast",
        CastOp,
        _taking("cpu_native_cast", "x", None),
        of_types("x op.out", "f32 bf16", "bf16 f32"),
    ),
    _lowering("cpu_native_concat", ConcatOp, _emit_concat, of_types("op.out", "f32", "bf16")),
    _lowering("cpu_native_zeros_like", ZerosLikeOp, _emit_zeros, of_types("op.out", "f32", "bf16")),
)
