"""Rules of `kernels/heads.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.logits import logits, num_parts, of_rows, sizes
from lostwax.backends.cpu.contract.rule import (
    Demand,
    Memory,
    Numbers,
    Parameter,
    RealRows,
    Whole,
    rules_of,
)
from lostwax.backends.cpu.contract.sizes import PART_BYTES


def _found() -> Memory:
    return Memory("found", "u8", lambda n: PART_BYTES * num_parts(n))


def _keys() -> Memory:
    return Memory("keys", "i64", lambda n: num_parts(n) * n.n)


def _parts() -> tuple[Parameter, ...]:
    return (
        logits(),
        of_rows("temperature", "f32", may_be_null=True),
        of_rows("seeds", "i32", may_be_null=True),
        of_rows("counters", "i32", may_be_null=True),
        _found(),
        RealRows(),
        *sizes(),
        Whole("logits_row"),
    )


def _pick() -> tuple[Parameter, ...]:
    return (
        logits(),
        _found(),
        of_rows("picked", "i32"),
        of_rows("logprobs", "f32"),
        RealRows(),
        *sizes(),
        Whole("logits_row"),
    )


def _first_of_parts() -> tuple[Parameter, ...]:
    return (logits(), _keys(), RealRows(), *sizes(), Whole("n", least=1), Whole("logits_row"))


def _first() -> tuple[Parameter, ...]:
    return (
        logits(),
        _found(),
        _keys(),
        Memory("first", "i32", lambda n: n.R * n.n),
        Memory("logprobs", "f32", lambda n: n.R * n.n),
        RealRows(),
        *sizes(),
        Whole("n", least=1),
        Whole("logits_row"),
    )


def _rows(n: Numbers) -> int:
    return n.R


HEADS = (
    *rules_of(
        "head_parts",
        ("",),
        _parts,
        chunks=num_parts,
        demands=(
            Demand(
                "seeds and counters where there are temperatures",
                lambda n: n.temperature <= min(n.seeds, n.counters),
            ),
        ),
    ),
    *rules_of("head_pick", ("",), _pick, chunks=_rows),
    *rules_of("head_logprob", ("",), _pick, chunks=_rows),
    *rules_of("head_first_of_parts", ("",), _first_of_parts, chunks=num_parts),
    *rules_of("head_first", ("",), _first, chunks=_rows, scratch_bytes=lambda n: 8 * n.n),
)
