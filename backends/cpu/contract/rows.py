"""Rules of `kernels/rows.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    Cache,
    Demand,
    Memory,
    Numbers,
    Parameter,
    Real,
    RealRows,
    Slots,
    Whole,
    apart,
    rules_of,
    strided,
    wholes,
)

_APART = apart("T", "out_row", "width")


def _rows(n: Numbers) -> int:
    return n.T


def _rms_norm(x: str) -> tuple[Parameter, ...]:
    return (
        Memory("x", x, lambda n: strided((n.T, n.x_row), (n.width, 1))),
        Memory("weight", x, lambda n: n.width),
        Memory("out", x, lambda n: strided((n.T, n.out_row), (n.width, 1))),
        RealRows(),
        *wholes("T width x_row out_row"),
        Real("eps"),
    )


def _layer_norm(x: str, weight: str, out: str) -> tuple[Parameter, ...]:
    return (
        Memory("x", x, lambda n: strided((n.T, n.x_row), (n.width, 1))),
        Memory("weight", weight, lambda n: n.width),
        Memory("bias", weight, lambda n: n.width),
        Memory("out", out, lambda n: strided((n.T, n.out_row), (n.width, 1))),
        RealRows(),
        *wholes("T width x_row out_row"),
        Real("eps"),
    )


def _add_norm(x: str) -> tuple[Parameter, ...]:
    return (
        Memory("a", x, lambda n: strided((n.T, n.a_row), (n.width, 1))),
        Memory("b", x, lambda n: strided((n.T, n.b_row), (n.width, 1))),
        Memory("weight", x, lambda n: n.width),
        Memory("total", x, lambda n: strided((n.T, n.total_row), (n.width, 1)), may_be_null=True),
        Memory("out", x, lambda n: strided((n.T, n.out_row), (n.width, 1))),
        RealRows(),
        *wholes("T width a_row b_row total_row out_row"),
        Real("eps"),
    )


def _rotate(x: str) -> tuple[Parameter, ...]:
    return (
        Memory("x", x, lambda n: strided((n.T, n.x_row), (n.heads, n.x_head), (n.width, 1))),
        Memory("table", "f32", lambda n: 2 * n.T * n.dim),
        Memory("out", x, lambda n: strided((n.T, n.out_row), (n.heads, n.out_head), (n.width, 1))),
        RealRows(),
        *wholes("T heads width offset dim"),
        Whole("interleaved", most=1),
        *wholes("x_row x_head out_row out_head"),
    )


def _append(part: str, cache: str) -> tuple[Parameter, ...]:
    return (
        Cache("cache", cache, lambda n: n.width),
        Memory("slots", "i32", lambda n: n.T),
        Memory("first", part, lambda n: strided((n.T, n.first_row), (n.first_width, 1))),
        Memory(
            "second",
            part,
            lambda n: strided((n.T, n.second_row), (n.second_width, 1)),
            may_be_null=True,
        ),
        RealRows(),
        *wholes("T width first_width second_width first_row second_row"),
        Slots("num_slots", "cache"),
    )


def _add(a: str, b: str, out: str) -> tuple[Parameter, ...]:
    return (
        Memory("a", a, lambda n: strided((n.T, n.a_row), (n.width, 1))),
        Memory("b", b, lambda n: strided((n.T, n.b_row), (n.width, 1))),
        Memory("out", out, lambda n: strided((n.T, n.out_row), (n.width, 1))),
        RealRows(),
        *wholes("T width a_row b_row out_row"),
    )


ROWS = (
    *rules_of("rms_norm", ("f32", "bf16"), _rms_norm, chunks=_rows, demands=(_APART,)),
    *rules_of(
        "layer_norm", ("f32 f32 f32", "bf16 f32 bf16"), _layer_norm, chunks=_rows, demands=(_APART,)
    ),
    *rules_of(
        "add_norm",
        ("f32", "bf16"),
        _add_norm,
        chunks=_rows,
        scratch_bytes=lambda n: 4 * n.width,
        demands=(_APART,),
    ),
    *rules_of(
        "rotate",
        ("f32", "bf16"),
        _rotate,
        chunks=_rows,
        demands=(
            _APART,
            apart("heads", "out_head", "width"),
            Demand("offset + dim <= width", lambda n: n.offset + n.dim <= n.width),
            Demand("dim is even", lambda n: n.dim % 2 == 0),
        ),
    ),
    *rules_of(
        "append",
        ("f32 f32", "f32 bf16", "bf16 f32", "bf16 bf16"),
        _append,
        chunks=_rows,
        symbol=lambda kernel, types: "_".join((kernel, *types.split())),
        demands=(
            Demand(
                "first_width + second_width <= width",
                lambda n: n.first_width + n.second_width <= n.width,
            ),
        ),
    ),
    *rules_of("add", ("f32 f32 f32", "f32 f32 bf16"), _add, chunks=_rows, demands=(_APART,)),
)
