"""What lostwax calls of FlashMLA, as sgl-flash-mla packages it. Imports neither it nor torch."""

from __future__ import annotations

from collections.abc import Mapping

from lostwax.backends.runtime import argument_contract

PACKAGE, MODULE, MAJOR = "sgl-flash-mla", "flash_mla", "1"
"""The distribution, what is imported, and the version's first number: others may differ in what
follows."""
CALLS: Mapping[str, tuple[str, ...]] = {
    "get_mla_metadata": (),
    "has_legacy": (),
    "flash_mla_with_kvcache": (
        "q", "k_cache", "block_table", "cache_seqlens", "head_dim_v", "tile_scheduler_metadata",
        "softmax_scale", "is_fp8_kvcache", "indices", "use_legacy",
    ),
    "flash_mla_sparse_fwd": ("q", "kv", "indices", "sm_scale", "d_v", "use_legacy"),
}  # fmt: skip
"""The library's functions that are called, and the names of the arguments that they are given."""
HEADS = (64, 128)
"""Heads that its kernels for Hopper are built for; fewer are padded with zeros."""


def unfit(name: str, taken: Mapping[str, bool]) -> str | None:
    """Why a function of CALLS cannot be called; `taken` are its parameters, True if required."""
    return argument_contract.unfit(name, CALLS[name], taken)


def padded_heads(heads: int) -> int:
    """Heads that the library is given."""
    return next(n for n in HEADS if n >= heads)
