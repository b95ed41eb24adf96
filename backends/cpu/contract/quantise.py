"""Rules of `kernels/quantise.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    ByteCache,
    Demand,
    Memory,
    Numbers,
    Pages,
    Parameter,
    RealRows,
    Whole,
    parts,
    rules_of,
    strided,
    wholes,
)


def _rows(n: Numbers) -> int:
    return n.T


def _heads(name: str, dtype: str) -> Memory:
    """[T, heads, width], with strides of rows and heads after its name."""

    def reach(n: Numbers) -> int:
        row, head = getattr(n, f"{name}_row"), getattr(n, f"{name}_head")
        return strided((n.T, row), (n.heads, head), (n.width, 1))

    return Memory(name, dtype, reach)


def _scales(n: Numbers) -> int:
    blocks = parts(n.width, n.block)
    return strided((n.T, n.scale_row), (n.heads, n.scale_head), (blocks, 1))


def _quantise(x: str, out: str) -> tuple[Parameter, ...]:
    return (
        _heads("x", x),
        _heads("out", out),
        Memory("scales", "f32", _scales),
        RealRows(),
        *wholes("T heads width"),
        Whole("block", least=1),
        Whole("powers", most=1),
        *wholes("x_row x_head out_row out_head scale_row scale_head"),
    )


def _hadamard(x: str) -> tuple[Parameter, ...]:
    return (
        _heads("x", x),
        _heads("out", x),
        RealRows(),
        *wholes("T heads width x_row x_head out_row out_head"),
    )


def _append_scaled(rest: str) -> tuple[Parameter, ...]:
    return (
        ByteCache(
            "cache",
            lambda n: n.width + 4 * n.num_scales + 2 * n.rest_width,
            lambda n: n.page_tokens,
        ),
        Memory("slots", "i32", lambda n: n.T),
        Memory("values", "f8", lambda n: strided((n.T, n.values_row), (n.width, 1))),
        Memory("scales", "f32", lambda n: strided((n.T, n.scales_row), (n.num_scales, 1))),
        Memory(
            "rest",
            rest,
            lambda n: strided((n.T, n.rest_row), (n.rest_width, 1)),
            may_be_null=True,
        ),
        RealRows(),
        *wholes("T width num_scales rest_width"),
        Whole("page_tokens", least=1),
        Whole("is_paged", most=1),
        *wholes("values_row scales_row rest_row"),
        Pages("num_pages", "cache"),
    )


QUANTISE = (
    *rules_of("quantise", ("f32 f8", "bf16 f8"), _quantise, chunks=_rows),
    *rules_of(
        "hadamard",
        ("f32", "bf16"),
        _hadamard,
        chunks=_rows,
        scratch_bytes=lambda n: 4 * n.width,
        demands=(Demand("width is a power of two", lambda n: n.width.bit_count() == 1),),
    ),
    *rules_of(
        "append_scaled",
        ("f32", "bf16"),
        _append_scaled,
        chunks=_rows,
        demands=(
            Demand(
                "no rest where pages hold values before scales",
                lambda n: not n.is_paged or not n.rest_width,
            ),
        ),
    ),
)
