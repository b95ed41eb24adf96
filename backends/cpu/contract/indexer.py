"""Rules of `kernels/indexer.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    ByteCache,
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
from lostwax.backends.cpu.contract.sizes import SCALED, SPAN


def _scales(n: Numbers) -> int:
    return parts(n.dim, SCALED)


_DEMANDS = (Demand("S <= P * page_tokens", lambda n: n.P * n.page_tokens >= n.S),)


_SCALED_Q = (
    Memory(
        "q_scales",
        "f32",
        lambda n: strided((n.first + n.T, n.scale_row), (n.heads, n.scale_head), (_scales(n), 1)),
    ),
    *wholes("scale_row scale_head"),
    Whole("is_paged", most=1),
)


def _logits(q: str) -> tuple[Parameter, ...]:
    is_scaled = q == "fp8"
    keys = (
        ByteCache("cache", lambda n: n.dim + 4 * _scales(n), lambda n: n.page_tokens)
        if is_scaled
        else Cache("cache", q, lambda n: n.dim, lambda n: n.page_tokens)
    )
    return (
        Memory(
            "q",
            "q8" if is_scaled else q,
            lambda n: strided((n.first + n.T, n.q_row), (n.heads, n.q_head), (n.dim, 1)),
        ),
        Memory("weights", "f32", lambda n: strided((n.first + n.T, n.w_row), (n.heads, 1))),
        keys,
        Memory("positions", "i32", lambda n: n.first + n.T),
        Memory("q_starts", "i32", lambda n: n.B),
        Memory("page_table", "i32", lambda n: n.B * n.P),
        Memory("logits", "f32", lambda n: n.T * n.S),
        RealRows(),
        *wholes("first T heads dim k"),
        Whole("B", least=1),
        Whole("P"),
        Whole("page_tokens", least=1),
        Whole("S"),
        Whole("many", least=1),
        *wholes("q_row q_head w_row"),
        Real("scale"),
        *(_SCALED_Q if is_scaled else ()),
        Pages("num_pages", "cache"),
    )


def _select() -> tuple[Parameter, ...]:
    return (
        Memory("logits", "f32", lambda n: n.T * n.S),
        Memory("positions", "i32", lambda n: n.first + n.T),
        Memory("out", "i32", lambda n: (n.first + n.T) * n.k),
        RealRows(),
        *wholes("first T k S"),
    )


INDEXER = (
    *rules_of(
        "index_logits",
        ("f32", "bf16"),
        _logits,
        chunks=lambda n: parts(n.T, n.many) * parts(n.S, SPAN),
        scratch_bytes=lambda n: 4 * (n.heads + 3) * (n.dim + 4),
        demands=_DEMANDS,
    ),
    *rules_of(
        "index_logits",
        ("fp8",),
        _logits,
        chunks=lambda n: parts(n.T, n.many) * parts(n.S, SPAN),
        scratch_bytes=lambda n: 4 * ((n.heads + 3) * (n.dim + 4) + (SPAN + n.heads) * n.dim),
        demands=_DEMANDS,
    ),
    *rules_of(
        "index_select",
        ("",),
        _select,
        chunks=lambda n: n.T,
        scratch_bytes=lambda n: 8 * n.S,
    ),
)
