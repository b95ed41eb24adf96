"""Rules of `kernels/rope.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    Demand,
    Memory,
    Parameter,
    Real,
    RealRows,
    Whole,
    rules_of,
    wholes,
)
from lostwax.backends.cpu.contract.sizes import MOST_PAIRS


def _table() -> tuple[Parameter, ...]:
    return (
        Memory("positions", "i32", lambda n: n.T),
        Memory("table", "f32", lambda n: 2 * n.T * n.dim),
        RealRows(),
        Whole("T"),
        Whole("dim", most=2 * MOST_PAIRS),
        Whole("interleaved", most=1),
        *wholes("low high"),
        Real("theta"),
        Real("factor"),
        Real("magnitude"),
    )


ROPE = rules_of(
    "rope_table",
    ("",),
    _table,
    chunks=lambda n: n.T,
    demands=(Demand("dim is even", lambda n: n.dim % 2 == 0),),
)
