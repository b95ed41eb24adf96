"""Rules of `kernels/indexer.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    Cache,
    Demand,
    Memory,
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
from lostwax.backends.cpu.contract.sizes import SPAN


def _logits(q: str) -> tuple[Parameter, ...]:
    return (
        Memory(
            "q",
            q,
            lambda n: strided((n.first + n.T, n.q_row), (n.heads, n.q_head), (n.dim, 1)),
        ),
        Memory("weights", "f32", lambda n: strided((n.first + n.T, n.w_row), (n.heads, 1))),
        Cache("cache", q, lambda n: n.dim, lambda n: n.page_tokens),
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
        demands=(Demand("S <= P * page_tokens", lambda n: n.P * n.page_tokens >= n.S),),
    ),
    *rules_of(
        "index_select",
        ("",),
        _select,
        chunks=lambda n: n.T,
        scratch_bytes=lambda n: 8 * n.S,
    ),
)
