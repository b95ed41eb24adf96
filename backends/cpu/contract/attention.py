"""Rules of `kernels/attention.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import (
    ByteCache,
    Cache,
    Demand,
    Formula,
    Memory,
    Nothing,
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
from lostwax.backends.cpu.contract.sizes import GROUP, HEADS, ROOM_BYTES, ROW_BLOCK, SCALED


def kv_b_of(dtype: str) -> tuple[Parameter, Parameter]:
    """[H, nope + value, latent], row after row."""

    def rows(n: Numbers) -> int:
        return n.H * (n.nope + n.value)

    def scales(n: Numbers) -> int:
        if dtype == "s8":
            return rows(n)
        return parts(rows(n), SCALED) * parts(n.latent, SCALED)

    return (
        Memory("kv_b", dtype, lambda n: rows(n) * n.latent),
        Memory("kv_b_scales", "f32", scales) if dtype in ("f8", "s8") else Nothing("kv_b_scales"),
    )


def _chunks_of(columns: Formula) -> Formula:
    return lambda n: n.H * parts(columns(n), GROUP) * parts(n.T, ROW_BLOCK)


def _absorb(q: str, kv_b: str) -> tuple[Parameter, ...]:
    return (
        Memory("q_nope", q, lambda n: strided((n.T, n.nope_row), (n.H, n.nope_head), (n.nope, 1))),
        Memory("q_pe", q, lambda n: strided((n.T, n.pe_row), (n.H, n.pe_head), (n.rope, 1))),
        *kv_b_of(kv_b),
        Memory("q", "f32", lambda n: n.T * n.H * (n.latent + n.rope)),
        RealRows(),
        *wholes("T H nope rope value latent nope_row nope_head pe_row pe_head"),
        Real("scale"),
    )


def _latents(layout: str) -> Cache | ByteCache:
    if layout == "fp8_656":
        return ByteCache(
            "cache",
            lambda n: n.latent + 4 * parts(n.latent, SCALED) + 2 * n.rope,
            lambda n: n.page_tokens,
        )
    dtype = "f8" if layout == "fp8_576" else layout
    return Cache("cache", dtype, lambda n: n.latent + n.rope, lambda n: n.page_tokens)


def _attend(layout: str) -> tuple[Parameter, ...]:
    return (
        Memory("q", "f32", lambda n: n.T * n.H * (n.latent + n.rope)),
        _latents(layout),
        Memory("selection", "i32", lambda n: n.T * n.K, may_be_null=True),
        Memory("positions", "i32", lambda n: n.T),
        Memory("q_starts", "i32", lambda n: n.B),
        Memory("page_table", "i32", lambda n: n.B * n.P),
        Memory("context", "f32", lambda n: n.T * n.H * n.latent),
        RealRows(),
        *wholes("T H rope latent K"),
        Whole("B", least=1),
        Whole("P"),
        Whole("page_tokens", least=1),
        Pages("num_pages", "cache"),
    )


def _write_heads(kv_b: str, out: str) -> tuple[Parameter, ...]:
    return (
        Memory("context", "f32", lambda n: n.T * n.H * n.latent),
        *kv_b_of(kv_b),
        Memory("out", out, lambda n: strided((n.T, n.out_row), (n.H * n.value, 1))),
        RealRows(),
        *wholes("T H nope value latent out_row"),
    )


ATTENTION = (
    *rules_of(
        "absorb",
        ("f32 f32", "f32 f8", "f32 s8", "bf16 bf16", "bf16 f8", "bf16 s8"),
        _absorb,
        chunks=_chunks_of(lambda n: n.latent + n.rope),
        scratch_bytes=lambda n: ROOM_BYTES,
    ),
    *rules_of(
        "attend",
        ("f32", "bf16", "fp8_576", "fp8_656"),
        _attend,
        chunks=lambda n: n.T * parts(n.H, HEADS),
        scratch_bytes=lambda n: (4 * HEADS + 8) * n.K,
        demands=(
            Demand(
                "K <= P * page_tokens where there is no selection",
                lambda n: bool(n.selection) or n.P * n.page_tokens >= n.K,
            ),
        ),
    ),
    *rules_of(
        "write_heads",
        ("f32 f32", "bf16 bf16", "f8 bf16", "f8 f32", "s8 bf16", "s8 f32"),
        _write_heads,
        chunks=_chunks_of(lambda n: n.value),
        demands=(
            Demand(
                "out_row >= H * value where T > 1",
                lambda n: n.T <= 1 or n.out_row >= n.H * n.value,
            ),
        ),
    ),
)
