"""Attention in the expanded form: contexts gathered, keys and values made of them some heads at a
time. Knows neither kernels nor a device.

Keys and values of the requests' whole contexts, cached prefix and new tokens, are expanded from the
latents once a layer and attended to as plain MHA of 192 and 128 dims. What the guard on total_kv
(`backends/plan/sizes.py`) bounds is the workspace.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.gpu_kernels.lowerings.ranks import LATENT, RANKS, ROPE
from lostwax.backends.lowering import Knob, Knobs, Match, Work
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.cache_layout import row_bytes
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import View

NOPE, VALUE = 128, 128
"""Dims of a head's keys and values: DeepSeek-V3.2's."""
LEAST_TOKENS = 256
"""Fewer do not pay for the expansion of contexts of which a prefix may be most."""
HEADS_KNOB = Knob("heads_at_once", (0, 64, 32, 16))
"""Heads whose keys and values lie in the workspace at once, 0: all."""


def context_rows(match: Match) -> int:
    """The most positions that the requests of a step have together."""
    pages, page_tokens, _ = match.shape("cache_in")
    longest = match.guard.longest(pages * page_tokens)
    return match.guard.together(match.shape("page_table")[0] * longest)


def longest_context(match: Match) -> int:
    """The most positions of one context."""
    page_tokens, pages = match.shape("cache_in")[1], match.shape("page_table")[1]
    return min(match.guard.longest(pages * page_tokens), context_rows(match))


@dataclass(frozen=True, slots=True)
class Heads:
    """Some heads whose keys and values lie in the workspace at once."""

    first: int
    count: int


def head_groups(match: Match, knobs: Knobs) -> list[Heads]:
    """All heads, in the groups that take turns in the workspace."""
    heads = match.shape("q_nope")[1]
    each = min(knobs["heads_at_once"] or heads, heads)
    return [Heads(first, min(each, heads - first)) for first in range(0, heads, each)]


@dataclass(frozen=True, slots=True)
class Contexts:
    """The contexts' latents and rotated keys, and keys and values of a group of heads, in bf16."""

    latents: View
    rope_keys: View
    expanded: View

    @staticmethod
    def of(match: Match, knobs: Knobs, carver: Carver) -> Contexts:
        """What as many heads as are there at once need of the workspace."""
        rows, heads = context_rows(match), head_groups(match, knobs)[0].count
        latents = carver.take("bf16", rows, 1, LATENT)
        rope_keys = carver.take("bf16", rows, 1, ROPE)
        return Contexts(latents, rope_keys, carver.take("bf16", rows, heads, NOPE + VALUE))


def expanded_work(match: Match, knobs: Knobs, contexts: int, keys: int) -> Work:
    """The expansion of `contexts` rows, and each new row against `keys` of them.

    Keys and values are written and read, whatever of them L2 holds.
    """
    rows, heads, _ = match.shape("q_nope")
    groups = len(head_groups(match, knobs))
    expand = 2 * contexts * LATENT * heads * (NOPE + VALUE)
    attend = 2 * rows * heads * keys * (NOPE + ROPE + VALUE)
    cached = contexts * row_bytes(match.layout("cache_in"), RANKS)
    latents = 2 * contexts * (LATENT + ROPE)
    expanded = 2 * contexts * heads * (NOPE + VALUE)
    ends = 2 * rows * heads * (NOPE + ROPE + VALUE) + 2 * heads * (NOPE + VALUE) * LATENT
    moved = cached + (1 + groups) * latents + 2 * expanded + ends
    return Work(moved, expand + attend, 1 + 2 * groups)


def part(view: View, axis: int, first: int, count: int) -> View:
    """`count` of the view's elements along an axis, from `first` on."""
    offset = view.offset + first * view.strides[axis] * DTYPE_BYTES[view.dtype]
    shape = (*view.shape[:axis], count, *view.shape[axis + 1 :])
    return msgspec.structs.replace(view, shape=shape, offset=offset)


def many_tokens() -> Predicate:
    """The step brings many new tokens, in rows of requests."""

    def refusal(match: Match) -> str | None:
        if match.segment != "extend":
            return f"segment {match.segment} has few rows a request, wants extend"
        rows = match.shape("q_nope")[0]
        if rows < LEAST_TOKENS:
            return f"{rows} rows of a step, wants >= {LEAST_TOKENS} to pay for the expansion"
        return None

    return Predicate(refusal)


def has_heads() -> Predicate:
    """The heads' widths are those of DeepSeek-V3.2."""

    def refusal(match: Match) -> str | None:
        heads, nope = match.shape("q_nope")[1:]
        value = match.shape("kv_b")[0] // heads - nope
        if (nope, value) == (NOPE, VALUE):
            return None
        return f"heads of {nope} key and {value} value dims, wants {NOPE} and {VALUE}"

    return Predicate(refusal)


def selects_some() -> Predicate:
    """Some of the positions that a row sees are not selected."""

    def refusal(match: Match) -> str | None:
        return "every position is selected: bits tell nothing" if match.guard.selects_all else None

    return Predicate(refusal)
