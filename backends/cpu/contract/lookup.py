"""Rules of `kernels/lookup.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    Memory,
    Parameter,
    RealRows,
    rules_of,
    strided,
    wholes,
)


def _take_rows(table: str, out: str) -> tuple[Parameter, ...]:
    return (
        Memory("table", table, lambda n: strided((n.held, n.table_row), (n.width, 1))),
        Memory("which", "i32", lambda n: n.T, may_be_null=True),
        Memory("out", out, lambda n: strided((n.T, n.out_row), (n.width, 1))),
        RealRows(),
        *wholes("T width held table_row out_row"),
    )


def _clear_rows(out: str) -> tuple[Parameter, ...]:
    return (
        Memory("out", out, lambda n: strided((n.T, n.out_row), (n.width, 1))),
        RealRows(),
        *wholes("T width out_row"),
    )


LOOKUP = (
    *rules_of(
        "take_rows",
        ("f32 f32", "bf16 bf16", "f32 bf16", "bf16 f32"),
        _take_rows,
        chunks=lambda n: n.T,
    ),
    *rules_of("clear_rows", ("f32", "bf16"), _clear_rows, chunks=lambda n: n.T),
)
