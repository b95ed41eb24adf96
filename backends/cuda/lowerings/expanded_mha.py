"""Attention in the expanded form (`gpu_kernels/lowerings/expanded.py`) by Hopper's own kernels:
contexts gathered, then expanded and attended to, some heads at a time. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lostwax.backends.cuda.lowerings.sparse_mla import FORMATS
from lostwax.backends.gpu_kernels.lowerings.expanded import (
    HEADS_KNOB,
    NOPE,
    VALUE,
    Contexts,
    Heads,
    context_rows,
    has_heads,
    head_groups,
    many_tokens,
    part,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver, f32, i32
from lostwax.backends.gpu_kernels.lowerings.ranks import LATENT, RANKS, ROPE, has_ranks
from lostwax.backends.lowering import Knob, Knobs, Match
from lostwax.backends.predicates import Predicate, axis_at_most, dtype, fact, layout, of_rows, plain
from lostwax.ir.contract.cache_layout import row_bytes
from lostwax.ir.contract.kernel import SHARED_BYTES, KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.contract.step_kernel import StepKernel

CONTEXTS, TILES = "causal_mha_contexts", "causal_mha_tiles"

_TILE_ROWS = 128  # query rows of a tile
_ENTRY = 8  # ints of a tile in the list
_MAX_REQS = _MAX_TILES = 1024  # what causal_mha_tiles.cu holds in shared memory
_GATHER_WARPS = 8  # rows of a CTA
_THREADS = 384
_BOX_DIMS = 64  # of 2 bytes: a swizzled row
_EXPAND_STAGES = 3

KNOBS = (Knob("take_turns", (0, 1)), HEADS_KNOB)
"""The first: whether warpgroups start products in turn."""


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
        query = _TILE_ROWS * 2 * (NOPE + ROPE)
        ring = self.stages * (self.keys * 2 * (NOPE + ROPE + VALUE) + 32)
        return query + 32 + 16 + ring

    def constants(self) -> dict[str, int]:
        """The kernel's macros."""
        return {
            "KEYS": self.keys,
            "STAGES": self.stages,
            "TAKE_TURNS": int(self.take_turns),
            SHARED_BYTES: self.shared_bytes,
        }


def _num_tiles(match: Match) -> int:
    """The most query tiles of a step: a request's last one may have a single row."""
    rows, reqs = match.shape("q_nope")[0], match.shape("page_table")[0]
    return (rows + (_TILE_ROWS - 1) * min(reqs, rows)) // _TILE_ROWS


@dataclass(frozen=True, slots=True)
class Scratch:
    """The count of tickets that CTAs drew for their next tiles, and what they attend to."""

    tickets: View
    contexts: Contexts


def carve(match: Match, knobs: Knobs, carver: Carver) -> Scratch:
    """What as many heads as are there at once need of the workspace."""
    tickets = carver.take("i32", 1)
    return Scratch(tickets, Contexts.of(match, knobs, carver))


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
            Pointer(scratch.contexts.latents),
            Pointer(scratch.contexts.rope_keys),
            Scalar("i64", page_tokens * row_bytes(stored, RANKS)),
            Scalar("i64", page_table.strides[0]),
            i32(page_table.shape[0]),
            i32(rows),
        ),
        op=name,
    )


def _expand(match: Match, scratch: Scratch, heads: Heads, name: str) -> KernelLaunch:
    columns, contexts = NOPE + VALUE, match.step(CONTEXTS)
    kv_b = part(match.view("kv_b"), 0, heads.first * columns, heads.count * columns)
    shape, strides = (kv_b.shape[0], 1, LATENT), (kv_b.strides[0], kv_b.strides[0], 1)
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
            _boxes(scratch.contexts.latents, _TILE_ROWS),
            _boxes(weights, columns),
            _boxes(part(scratch.contexts.expanded, 1, 0, heads.count), _BOX_DIMS),
            Pointer(part(contexts, 0, contexts.shape[0] - 1, 1)),
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


def _attend(match: Match, attention: Attention, scratch: Scratch, heads: Heads) -> KernelLaunch:
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
            _boxes(part(match.view("q_nope"), 1, heads.first, heads.count), _TILE_ROWS),
            _boxes(part(match.view("q_pe"), 1, heads.first, heads.count), _TILE_ROWS),
            _boxes(part(scratch.contexts.expanded, 1, 0, heads.count), form.keys),
            _boxes(scratch.contexts.rope_keys, form.keys),
            Pointer(attention.keys),
            Pointer(match.step(TILES)),
            Pointer(scratch.tickets),
            Pointer(part(out, 1, heads.first * VALUE, heads.count * VALUE)),
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
    for heads in head_groups(match, knobs):
        listed.append(_expand(match, scratch, heads, attention.name))
        listed.append(_attend(match, attention, scratch, heads))
    return tuple(listed)


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
    & has_heads()
    & of_rows("q_nope")
    & many_tokens()
    & axis_at_most("page_table", 0, _MAX_REQS)
    & _lists_all_tiles()
)
"""What the expanded forms ask: the widths of DeepSeek-V3.2, and what the kernels are made for."""
