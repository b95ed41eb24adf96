"""Rules of `kernels/products.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    Formula,
    Memory,
    Nothing,
    Numbers,
    Parameter,
    RealRows,
    apart,
    parts,
    rules_of,
    strided,
    wholes,
)
from lostwax.backends.cpu.contract.sizes import GROUP, ROOM_BYTES, ROW_BLOCK, SCALED, TILE


def packed(
    name: str, dtype: str, rows: Formula, columns: Formula, matrices: Formula = lambda n: 1
) -> tuple[Parameter, Parameter]:
    """A weight [matrices][rows / 16][columns][16], and its scales where it is e4m3."""

    def reach(n: Numbers) -> int:
        return matrices(n) * parts(rows(n), TILE) * TILE * columns(n)

    def scales(n: Numbers) -> int:
        filled = parts(rows(n), TILE) * TILE
        return matrices(n) * parts(filled, SCALED) * parts(columns(n), SCALED)

    beside = f"{name}_scales"
    return (
        Memory(name, dtype, reach),
        Memory(beside, "f32", scales) if dtype == "f8" else Nothing(beside),
    )


def _chunks(n: Numbers) -> int:
    return parts(n.N, GROUP) * parts(n.T, ROW_BLOCK)


def _linear(x: str, weight: str, out: str) -> tuple[Parameter, ...]:
    return (
        Memory("x", x, lambda n: strided((n.T, n.x_row), (n.K, 1))),
        *packed("weight", weight, lambda n: n.N, lambda n: n.K),
        Memory("out", out, lambda n: strided((n.T, n.out_row), (n.N, 1))),
        RealRows(),
        *wholes("T K N x_row out_row"),
    )


def _gate_up(x: str, weight: str) -> tuple[Parameter, ...]:
    return (
        Memory("x", x, lambda n: strided((n.T, n.x_row), (n.K, 1))),
        *packed("gate", weight, lambda n: n.N, lambda n: n.K),
        *packed("up", weight, lambda n: n.N, lambda n: n.K),
        Memory("out", x, lambda n: strided((n.T, n.out_row), (n.N, 1))),
        RealRows(),
        *wholes("T K N x_row out_row"),
    )


PRODUCTS = (
    *rules_of(
        "linear",
        ("f32 f32 f32", "bf16 bf16 bf16", "bf16 bf16 f32", "bf16 f8 bf16", "bf16 f8 f32"),
        _linear,
        chunks=_chunks,
        scratch_bytes=lambda n: ROOM_BYTES,
        demands=(apart("T", "out_row", "N"),),
    ),
    *rules_of(
        "gate_up",
        ("f32 f32", "bf16 bf16", "bf16 f8"),
        _gate_up,
        chunks=_chunks,
        scratch_bytes=lambda n: ROOM_BYTES,
        demands=(apart("T", "out_row", "N"),),
    ),
)
