"""What attention in the expanded form has in common on Hopper: contexts gathered, then expanded.

Keys and values of the requests' whole contexts, cached prefix and new tokens, are expanded from the
latents once a layer, some heads at a time, and attended to as plain MHA of 192 and 128 dims. What
the guard on total_kv (`backends/plan/sizes.py`) bounds is the workspace. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lostwax.backends.cuda.lowerings.sparse_mla import FORMATS, RANKS, has_ranks
from lostwax.backends.gpu_kernels.lowerings.launches import Carver, f32, i32
from lostwax.backends.lowering import Knob, Knobs, Match, Work
from lostwax.backends.predicates import Predicate, axis_at_most, dtype, fact, layout, of_rows, plain
from lostwax.ir.contract.cache_layout import row_bytes
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.kernel import SHARED_BYTES, KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.contract.step_kernel import StepKernel

CONTEXTS, TILES = "causal_mha_contexts", "causal_mha_tiles"

_LATENT, _ROPE = RANKS
_NOPE, _VALUE = 128, 128
_TILE_ROWS = 128  # query rows of a tile
_ENTRY = 8  # ints of a tile in the list
_MAX_REQS = _MAX_TILES = 1024  # what causal_mha_tiles.cu holds in shared memory
_GATHER_WARPS = 8  # rows of a CTA
_THREADS = 384
_BOX_DIMS = 64  # of 2 bytes: a swizzled row
_EXPAND_STAGES = 3
LEAST_TOKENS = 256
"""Fewer do not pay for the expansion of contexts of which a prefix may be most."""

KNOBS = (
    Knob("take_turns", (0, 1)),
    Knob("heads_at_once", (0, 64, 32, 16)),
)
"""Whether warpgroups start products in turn; heads whose keys and values lie in the workspace at
once, 0: all."""


@dataclass(frozen=True, slots=True)
class MhaForm:
    """Tiles of `keys`, as many stages of them as fit; whether warpgroups take turns."""

    keys: int
    take_turns: bool

    @property
    def stages(self) -> int:
        """Tiles of keys and values under way."""
        return 4 if self.keys == 64 else 2

    @property
    def shared_bytes(self) -> int:
        """As `causal_mha/layout.h` adds it up; the kernel does not compile where the two differ."""
        query = _TILE_ROWS * 2 * (_NOPE + _ROPE)
        ring = self.stages * (self.keys * 2 * (_NOPE + _ROPE + _VALUE) + 32)
        return query + 32 + 16 + ring

    def constants(self) -> dict[str, int]:
        """The kernel's macros."""
        return {
            "KEYS": self.keys,
            "STAGES": self.stages,
            "TAKE_TURNS": int(self.take_turns),
            SHARED_BYTES: self.shared_bytes,
        }


def context_rows(match: Match) -> int:
    """The most positions that the requests of a step have together."""
    pages, page_tokens, _ = match.shape("cache_in")
    longest = match.guard.longest(pages * page_tokens)
    return match.guard.together(match.shape("page_table")[0] * longest)


def _num_tiles(match: Match) -> int:
    """The most query tiles of a step: a request's last one may have a single row."""
    rows, reqs = match.shape("q_nope")[0], match.shape("page_table")[0]
    return (rows + (_TILE_ROWS - 1) * min(reqs, rows)) // _TILE_ROWS


@dataclass(frozen=True, slots=True)
class _Heads:
    """Some heads whose keys and values lie in the workspace at once."""

    first: int
    count: int


def _head_groups(match: Match, knobs: Knobs) -> list[_Heads]:
    heads = match.shape("q_nope")[1]
    each = min(knobs["heads_at_once"] or heads, heads)
    return [_Heads(first, min(each, heads - first)) for first in range(0, heads, each)]


@dataclass(frozen=True, slots=True)
class Scratch:
    """The contexts' latents and rotated keys, and keys and values of a group of heads, in bf16;
    the count of tickets that CTAs drew for their next tiles."""

    tickets: View
    latents: View
    rope_keys: View
    expanded: View


def carve(match: Match, knobs: Knobs, carver: Carver) -> Scratch:
    """What as many heads as are there at once need of the workspace."""
    rows, heads = context_rows(match), _head_groups(match, knobs)[0].count
    tickets = carver.take("i32", 1)
    latents = carver.take("bf16", rows, 1, _LATENT)
    rope_keys = carver.take("bf16", rows, 1, _ROPE)
    expanded = carver.take("bf16", rows, heads, _NOPE + _VALUE)
    return Scratch(tickets, latents, rope_keys, expanded)


def expanded_work(match: Match, knobs: Knobs, contexts: int, keys: int) -> Work:
    """The expansion of `contexts` rows, and each new row against `keys` of them.

    Keys and values are written and read, whatever of them L2 holds.
    """
    rows, heads, _ = match.shape("q_nope")
    groups = len(_head_groups(match, knobs))
    expand = 2 * contexts * _LATENT * heads * (_NOPE + _VALUE)
    attend = 2 * rows * heads * keys * (_NOPE + _ROPE + _VALUE)
    cached = contexts * row_bytes(match.layout("cache_in"), RANKS)
    latents = 2 * contexts * (_LATENT + _ROPE)
    expanded = 2 * contexts * heads * (_NOPE + _VALUE)
    ends = 2 * rows * heads * (_NOPE + _ROPE + _VALUE) + 2 * heads * (_NOPE + _VALUE) * _LATENT
    moved = cached + (1 + groups) * latents + 2 * expanded + ends
    return Work(moved, expand + attend, 1 + 2 * groups)


def prepare(match: Match, knobs: Knobs) -> tuple[StepKernel]:
    """Where contexts lie, and the query tiles: once a step."""
    reqs = match.shape("page_table")[0]
    source = KernelSource(
        language="cuda",
        path="causal_mha_tiles.cu",
        symbol="causal_mha_tiles",
        constants={"MAX_REQS": _MAX_REQS, "MAX_TILES": _MAX_TILES},
        num_warps=32,
    )
    outputs = (
        (CONTEXTS, "i32", (reqs + 1,)),
        (TILES, "i32", (1 + _num_tiles(match), _ENTRY)),
    )
    arguments = ("positions", "q_starts", CONTEXTS, TILES, i32(reqs))
    return (StepKernel(source=source, arguments=arguments, outputs=outputs, grid=(1, 1, 1)),)


def _part(view: View, axis: int, first: int, count: int) -> View:
    """`count` of the view's elements along an axis, from `first` on."""
    offset = view.offset + first * view.strides[axis] * DTYPE_BYTES[view.dtype]
    shape = (*view.shape[:axis], count, *view.shape[axis + 1 :])
    return msgspec.structs.replace(view, shape=shape, offset=offset)


def _boxes(view: View, rows: int) -> TensorMap:
    """Boxes of `rows` first indices, one second, and 64 dims as the matrix units read them."""
    return TensorMap(view=view, box=(rows, 1, _BOX_DIMS), swizzle="128B", l2_promotion="256B")


def _gather(match: Match, scratch: Scratch, name: str) -> KernelLaunch:
    cache, page_table = match.view("cache_in"), match.view("page_table")
    page_tokens, stored = match.shape("cache_in")[1], match.layout("cache_in")
    rows = context_rows(match)
    compiled = match.build(
        KernelSource(
            language="cuda",
            path="gather_latents.cu",
            symbol="gather_latents",
            constants={"FORMAT": FORMATS[stored], "PAGE": page_tokens},
            num_warps=_GATHER_WARPS,
        )
    )
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=(-(-rows // _GATHER_WARPS), 1, 1),
        block=(32 * _GATHER_WARPS, 1, 1),
        params=(
            Pointer(cache),
            Pointer(match.step(CONTEXTS)),
            Pointer(page_table),
            Pointer(scratch.latents),
            Pointer(scratch.rope_keys),
            Scalar("i64", page_tokens * row_bytes(stored, RANKS)),
            Scalar("i64", page_table.strides[0]),
            i32(page_table.shape[0]),
            i32(rows),
        ),
        op=name,
    )


def _expand(match: Match, scratch: Scratch, heads: _Heads, name: str) -> KernelLaunch:
    columns, contexts = _NOPE + _VALUE, match.step(CONTEXTS)
    kv_b = _part(match.view("kv_b"), 0, heads.first * columns, heads.count * columns)
    shape, strides = (kv_b.shape[0], 1, _LATENT), (kv_b.strides[0], kv_b.strides[0], 1)
    weights = msgspec.structs.replace(kv_b, shape=shape, strides=strides)
    stage = (_TILE_ROWS + columns) * 2 * _BOX_DIMS
    shared = _EXPAND_STAGES * (stage + 16) + 2 * _TILE_ROWS * columns
    compiled = match.build(
        KernelSource(
            language="cuda",
            path="expand_latents.cu",
            symbol="sm90_expand_latents",
            constants={"STAGES": _EXPAND_STAGES, SHARED_BYTES: shared},
            num_warps=_THREADS // 32,
        )
    )
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=(match.target.compute_units, 1, 1),
        block=(_THREADS, 1, 1),
        params=(
            _boxes(scratch.latents, _TILE_ROWS),
            _boxes(weights, columns),
            _boxes(_part(scratch.expanded, 1, 0, heads.count), _BOX_DIMS),
            Pointer(_part(contexts, 0, contexts.shape[0] - 1, 1)),
            Pointer(scratch.tickets),
            i32(context_rows(match)),
            i32(heads.count),
        ),
        shared_bytes=shared,
        op=name,
    )


@dataclass(frozen=True, slots=True)
class Attention:
    """One of the kernels that attend: the lowering's name, and what tells it a row's keys."""

    name: str
    form: MhaForm
    keys: View
    more: tuple[Scalar, ...] = ()

    @property
    def path(self) -> str:
        """The kernel's source."""
        return self.name.removeprefix("sm90_") + ".cu"


def _attend(match: Match, attention: Attention, scratch: Scratch, heads: _Heads) -> KernelLaunch:
    form, out = attention.form, match.view("op.out")
    compiled = match.build(
        KernelSource(
            language="cuda",
            path=attention.path,
            symbol=attention.name,
            constants=form.constants(),
            num_warps=_THREADS // 32,
        )
    )
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=(match.target.compute_units, 1, 1),
        block=(_THREADS, 1, 1),
        params=(
            _boxes(_part(match.view("q_nope"), 1, heads.first, heads.count), _TILE_ROWS),
            _boxes(_part(match.view("q_pe"), 1, heads.first, heads.count), _TILE_ROWS),
            _boxes(_part(scratch.expanded, 1, 0, heads.count), form.keys),
            _boxes(scratch.rope_keys, form.keys),
            Pointer(attention.keys),
            Pointer(match.step(TILES)),
            Pointer(scratch.tickets),
            Pointer(_part(out, 1, heads.first * _VALUE, heads.count * _VALUE)),
            Scalar("i64", out.strides[0]),
            i32(heads.count),
            f32(float(match.attr("op", "scale"))),
            *attention.more,
        ),
        shared_bytes=form.shared_bytes,
        op=attention.name,
    )


def launches(
    match: Match, knobs: Knobs, attention: Attention, scratch: Scratch
) -> tuple[Launch, ...]:
    """The contexts' rows gathered, then for each group of heads the expansion and the attention."""
    listed: list[Launch] = [_gather(match, scratch, attention.name)]
    for heads in _head_groups(match, knobs):
        listed.append(_expand(match, scratch, heads, attention.name))
        listed.append(_attend(match, attention, scratch, heads))
    return tuple(listed)


def _many_tokens() -> Predicate:
    """The step brings many new tokens, in rows of requests."""

    def refusal(match: Match) -> str | None:
        if match.segment != "extend":
            return f"segment {match.segment} has few rows a request, wants extend"
        rows = match.shape("q_nope")[0]
        if rows < LEAST_TOKENS:
            return f"{rows} rows of a step, wants >= {LEAST_TOKENS} to pay for the expansion"
        return None

    return Predicate(refusal)


def _has_heads() -> Predicate:
    """The heads' widths are those of DeepSeek-V3.2."""

    def refusal(match: Match) -> str | None:
        heads, nope = match.shape("q_nope")[1:]
        value = match.shape("kv_b")[0] // heads - nope
        if (nope, value) == (_NOPE, _VALUE):
            return None
        return f"heads of {nope} key and {value} value dims, wants {_NOPE} and {_VALUE}"

    return Predicate(refusal)


def _lists_all_tiles() -> Predicate:
    def refusal(match: Match) -> str | None:
        tiles = _num_tiles(match)
        return None if tiles <= _MAX_TILES else f"{tiles} query tiles, wants <= {_MAX_TILES}"

    return Predicate(refusal)


WHEN = (
    fact("matrix_units", "wgmma")
    & fact("tensor_maps", True)
    & dtype("q_nope", "bf16")
    & dtype("q_pe", "bf16")
    & plain("kv_b")
    & dtype("kv_b", "bf16")
    & layout("cache_in", *FORMATS)
    & has_ranks()
    & _has_heads()
    & of_rows("q_nope")
    & _many_tokens()
    & axis_at_most("page_table", 0, _MAX_REQS)
    & _lists_all_tiles()
)
"""What the expanded forms ask: the widths of DeepSeek-V3.2, and what the kernels are made for."""
