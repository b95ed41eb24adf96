"""What kernels that round to fp8 are told of a value and of a cache of bytes. Launches nothing."""

from __future__ import annotations

import msgspec

from lostwax.backends.gpu_kernels.lowerings.launches import Argument, i32
from lostwax.backends.lowering import Match
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import View
from lostwax.ir.contract.scale_layout import BlockScale


def as_bytes(view: View) -> View:
    """The same elements as u8: fp8 is written by its bits."""
    return msgspec.structs.replace(view, dtype="u8")


def block_of(match: Match, quantised: str) -> int:
    """Columns under one scale of a value that `quant.quantise` gives."""
    scale = match.scale(quantised)
    assert isinstance(scale, BlockScale)  # the op's verifier
    return scale.cols


def rounding(match: Match, node: str, quantised: str) -> dict[str, int]:
    """The constants of `rounding.quantised` for one node and its result."""
    return {
        "POWER_OF_TWO": int(match.attr(node, "scale_fmt") == "ue8m0"),
        "FNUZ": int(match.dtype(quantised) == "f8E4M3FNUZ"),
    }


def blocks_of_two(quantised: str) -> Predicate:
    """A block of the value has a power of two of columns."""

    def refusal(match: Match) -> str | None:
        block = block_of(match, quantised)
        fits = block & (block - 1) == 0
        return None if fits else f"blocks of {quantised} have {block} columns, wants a power of two"

    return Predicate(refusal)


def one_dtype(*values: str) -> Predicate:
    """The values have one element type: where it is bf16, all are rounded to it."""

    def refusal(match: Match) -> str | None:
        found = {value: match.dtype(value) for value in values}
        same = len(set(found.values())) == 1
        return None if same else f"element types {found} differ, wants one"

    return Predicate(refusal)


def width_at_most(value: str, bound: int) -> Predicate:
    """The value's last axis has at most `bound` elements."""

    def refusal(match: Match) -> str | None:
        got = match.shape(value)[-1]
        return None if got <= bound else f"rows of {value} have {got} elements, wants <= {bound}"

    return Predicate(refusal)


def head_strides(**views: View) -> dict[str, Argument]:
    """`NAME_row_stride` and `NAME_head_stride` of rows [T, H, D]; without heads there is one."""
    found: dict[str, Argument] = {}
    for name, view in views.items():
        found[f"{name}_row_stride"] = i32(view.strides[0])
        found[f"{name}_head_stride"] = i32(view.strides[1] if len(view.shape) == 3 else 0)
    return found


def places(match: Match, cache: str = "cache_in") -> dict[str, int]:
    """The constants of `scaled_cache` kernels for the bytes of a cache."""
    form, row = LAYOUTS[match.layout(cache)], match.parts(cache)
    page_tokens, row_bytes = match.shape(cache)[1], form.row_bytes(row)
    values, scale_bytes = row[0], DTYPE_BYTES["f32"] * form.scales(row)
    paged = form.is_paged
    return {
        "PAGE_TOKENS": page_tokens,
        "PAGE_BYTES": page_tokens * row_bytes,
        "VALUES_STRIDE": values if paged else row_bytes,
        "SCALES_AT": page_tokens * values if paged else values,
        "SCALES_STRIDE": scale_bytes if paged else row_bytes,
    }


def place_of_rest(match: Match, cache: str = "cache_in") -> dict[str, int]:
    """Where the part behind the scales begins in a row of bytes."""
    form, row = LAYOUTS[match.layout(cache)], match.parts(cache)
    return {"REST_AT": row[0] + DTYPE_BYTES["f32"] * form.scales(row)}
