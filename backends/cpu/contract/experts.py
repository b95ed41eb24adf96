"""Rules of `kernels/experts.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.products import packed, scales_of_x
from lostwax.backends.cpu.contract.rule import (
    MOST,
    Demand,
    Formula,
    Memory,
    Numbers,
    Parameter,
    Real,
    RealRows,
    Whole,
    apart,
    parts,
    rules_of,
    strided,
    wholes,
)
from lostwax.backends.cpu.contract.sizes import GROUP, ROOM_BYTES


def _slots(n: Numbers) -> int:
    return n.T * n.choices


_COUNTED = Demand(f"T * choices <= {MOST}", lambda n: _slots(n) <= MOST)
"""Slots are counted by an i32."""


def _chunks_of(columns: Formula) -> Formula:
    return lambda n: n.E * parts(columns(n), GROUP)


def _scratch(lists: int) -> Formula:
    return lambda n: ROOM_BYTES + lists * 4 * (_slots(n) + 1)


def _gate_up(x: str, weight: str) -> tuple[Parameter, ...]:
    return (
        Memory("x", x, lambda n: strided((n.T, n.x_row), (n.D, 1))),
        Memory("ids", "i32", _slots),
        *packed("gate", weight, lambda n: n.I, lambda n: n.D, lambda n: n.E),
        *packed("up", weight, lambda n: n.I, lambda n: n.D, lambda n: n.E),
        Memory("hidden", "f32", lambda n: _slots(n) * n.I),
        RealRows(),
        *wholes("T choices E D I x_row"),
        *scales_of_x(x, lambda n: n.D),
    )


def _round(hidden: str) -> tuple[Parameter, ...]:
    return (
        Memory("hidden", "f32", lambda n: _slots(n) * n.I),
        Memory("ids", "i32", _slots),
        RealRows(),
        *wholes("T choices I"),
        Whole("powers", most=1),
    )


def _down(*types: str) -> tuple[Parameter, ...]:
    weight = types[-1]
    return (
        Memory("hidden", "f32", lambda n: _slots(n) * n.I),
        Memory("ids", "i32", _slots),
        *packed("weight", weight, lambda n: n.D, lambda n: n.I, lambda n: n.E),
        Memory("made", "f32", lambda n: _slots(n) * n.D),
        RealRows(),
        *wholes("T choices E I D"),
    )


def _sum(made: str) -> tuple[Parameter, ...]:
    return (
        Memory("made", made, lambda n: _slots(n) * n.D),
        Memory("ids", "i32", _slots),
        Memory("weights", "f32", _slots),
        Memory("out", "f32", lambda n: strided((n.T, n.out_row), (n.D, 1))),
        RealRows(),
        *wholes("T choices D out_row"),
    )


def _route(logits: str) -> tuple[Parameter, ...]:
    return (
        Memory("logits", logits, lambda n: strided((n.T, n.logits_row), (n.E, 1))),
        Memory("bias", "f32", lambda n: n.E),
        Memory("positions", "i32", lambda n: n.T),
        Memory("ids", "i32", lambda n: n.T * n.K),
        Memory("weights", "f32", lambda n: n.T * n.K),
        RealRows(),
        *wholes("T E K"),
        Whole("groups", least=1),
        Whole("stay"),
        Whole("normalise", most=1),
        Whole("logits_row"),
        Real("scale"),
    )


EXPERTS = (
    *rules_of(
        "experts_gate_up",
        ("f32 f32", "f32 f8", "f32 s8", "bf16 bf16", "bf16 f8", "bf16 s8", "q8 f8"),
        _gate_up,
        chunks=_chunks_of(lambda n: n.I),
        scratch_bytes=_scratch(2),
        demands=(_COUNTED,),
    ),
    *rules_of("experts_round", ("f8",), _round, chunks=_slots, demands=(_COUNTED,)),
    *rules_of(
        "experts_down",
        ("f32", "bf16", "f8", "s8", "bf16 s8"),
        _down,
        chunks=_chunks_of(lambda n: n.D),
        scratch_bytes=_scratch(1),
        demands=(_COUNTED,),
    ),
    *rules_of(
        "experts_sum",
        ("f32",),
        _sum,
        chunks=lambda n: n.T,
        demands=(_COUNTED, apart("T", "out_row", "D")),
    ),
    *rules_of(
        "route",
        ("f32",),
        _route,
        chunks=lambda n: n.T,
        scratch_bytes=lambda n: 12 * n.E,
        demands=(Demand("groups <= E", lambda n: n.groups <= n.E),),
    ),
)
