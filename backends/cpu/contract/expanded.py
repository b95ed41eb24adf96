"""Rules of `kernels/expanded_attention.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.attention import kv_b_of
from lostwax.backends.cpu.contract.rule import (
    Cache,
    Demand,
    Memory,
    Numbers,
    Pages,
    Parameter,
    Real,
    RealRows,
    Whole,
    parts,
    rules_of,
    strided,
    wholes,
)
from lostwax.backends.cpu.contract.sizes import PANEL, ROOM_BYTES, TILE


def _attend(q: str, weight: str, cache: str) -> tuple[Parameter, ...]:
    return (
        Memory("q_nope", q, lambda n: strided((n.T, n.nope_row), (n.H, n.nope_head), (n.nope, 1))),
        Memory("q_pe", q, lambda n: strided((n.T, n.pe_row), (n.H, n.pe_head), (n.rope, 1))),
        *kv_b_of(weight),
        Cache("cache", cache, lambda n: n.latent + n.rope, lambda n: n.page_tokens),
        Memory("marks", "i64", lambda n: n.T * parts(n.limit, PANEL), may_be_null=True),
        Memory("positions", "i32", lambda n: n.T),
        Memory("q_starts", "i32", lambda n: n.B + 1),
        Memory("page_table", "i32", lambda n: n.B * n.P),
        Memory("out", q, lambda n: strided((n.T, n.out_row), (n.H * n.value, 1))),
        RealRows(),
        *wholes("T H nope rope value latent limit"),
        Whole("B", least=1),
        Whole("P"),
        Whole("page_tokens", least=1),
        Whole("row_tile", least=1),
        *wholes("nope_row nope_head pe_row pe_head out_row"),
        Real("scale"),
        Pages("num_pages", "cache"),
    )


def _scratch(n: Numbers) -> int:
    """A Room, a panel's cached rows, keys and values, and the sums of a tile's rows."""
    value = parts(n.value, TILE) * TILE
    panel = PANEL * (n.latent + n.rope + n.nope + value)
    return ROOM_BYTES + 4 * (panel + n.row_tile * (value + 2))


def _mark() -> tuple[Parameter, ...]:
    return (
        Memory("selection", "i32", lambda n: n.T * n.K),
        Memory("marks", "i64", lambda n: n.T * n.words),
        RealRows(),
        *wholes("T K words"),
    )


EXPANDED = (
    *rules_of(
        "attend_expanded",
        (
            "f32 f32 f32",
            "f32 f32 bf16",
            "f32 f8 f32",
            "f32 f8 bf16",
            "f32 s8 f32",
            "f32 s8 bf16",
            "bf16 bf16 bf16",
            "bf16 bf16 f32",
            "bf16 f8 bf16",
            "bf16 f8 f32",
            "bf16 s8 bf16",
            "bf16 s8 f32",
        ),
        _attend,
        chunks=lambda n: n.H * parts(n.T, n.row_tile),
        scratch_bytes=_scratch,
        demands=(Demand("limit <= P * page_tokens", lambda n: n.P * n.page_tokens >= n.limit),),
    ),
    *rules_of("mark_selected", ("",), _mark, chunks=lambda n: n.T),
)
