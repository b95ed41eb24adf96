"""Rows written to caches of plain elements, fp8 among them, as one launch. Knows no device."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.fp8_rows import as_bytes
from lostwax.backends.gpu_kernels.lowerings.launches import (
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.predicates import Predicate, layout, of_rows
from lostwax.ir.contract.cache_layout import in_either_encoding
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.region import Region


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    cache, rows = match.view("cache_in"), match.views("rows")
    widths = match.parts("cache_in")
    first, second = rows[0], rows[-1]
    is_fp8 = cache.dtype.startswith("f8")
    return (
        triton_launch(
            match,
            "lostwax.backends.gpu_kernels.cache:append",
            {
                "cache": as_bytes(cache) if is_fp8 else cache,
                "slots": match.view("slots"),
                "first": first,
                "second": second,
                "real_rows": real_rows(match),
                "token_stride": i32(cache.strides[1]),
                "first_stride": i32(first.strides[0]),
                "second_stride": i32(second.strides[0]),
            },
            {
                "FIRST": widths[0],
                "SECOND": widths[1] if len(rows) > 1 else 0,
                "BLOCK": next_power_of_two(sum(widths)),
                "FP8": int(is_fp8),
                "FNUZ": int(cache.dtype == "f8E4M3FNUZ"),
            },
            grid=(match.bucket.tokens, 1, 1),
            op="smxx_append",
            num_warps=1,
            rows_of=("token_stride", "first_stride", "second_stride"),
        ),
    )


def _at_most_two_parts(match: Match) -> str | None:
    count = len(match.parts("cache_in"))
    return None if count <= 2 else f"rows of cache_in have {count} parts, wants at most 2"


APPEND = Lowering(
    name="smxx_append",
    pattern=Region.single(AppendOp),
    emit=_emit,
    when=layout("cache_in", "f32", "bf16", *in_either_encoding("fp8_576"))
    & Predicate(_at_most_two_parts)
    & of_rows("slots"),
    row_invariant=True,
)
