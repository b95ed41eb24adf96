"""Attention over the paged cache and the indexer's choice, native kernels."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    ROOM_BYTES,
    Argument,
    in_a_list,
    native,
    num_rows,
    of_types,
    symbol,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.attention import DENSE, SPARSE, Sizes
from lostwax.backends.portable.lowerings.calls import Emit, scale_view, value_bytes
from lostwax.backends.portable.lowerings.indexer import INDEX_TOPK, columns
from lostwax.backends.portable.lowerings.linear import same_dtype
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Launch, View

HEADS = 4
"""Of a chunk, as `kernels/attention.cpp` cuts them."""
FEW_ROWS = 8
"""Up to so many rows, each is a chunk of its own beside the others."""
ROWS_OF_CHUNK = 16
"""Of more: they read the same cached keys while those are near."""

SPAN = 256
"""Keys that a thread widens at once, as `kernels/indexer.cpp` cuts them."""

_ROWS = P.of_rows("positions")
_LATENTS = P.layout("cache_in", "f32", "bf16", "fp8_576", "fp8_656") & _ROWS
_PLAIN = (
    P.layout("cache_in", "f32", "bf16")
    & of_types("q weights", "f32 f32", "bf16 f32")
    & same_dtype("cache_in", "q")
)
_SCALED = P.layout("cache_in", "index_paged", "index_row") & of_types("q weights", "q8 f32")
_KEYS = Predicate(lambda match: (_SCALED if match.is_scaled("q") else _PLAIN).refusal(match))

_TYPES = (
    "f32 f32 f32 f32", "f32 f32 f8 f32", "f32 f32 s8 f32",
    "bf16 bf16 bf16 bf16", "bf16 bf16 f8 bf16", "bf16 bf16 s8 bf16",
)  # fmt: skip


def _carved(s: Sizes, workspace: View | None) -> tuple[Carver, View, View]:
    """Absorbed queries and contexts, of every head."""
    carver = Carver(workspace)
    return carver, carver.take("f32", s.T, s.H, s.C + s.R), carver.take("f32", s.T, s.H, s.C)


def _emit_attend(name: str, *, is_dense: bool) -> Emit:
    node, out_name = ("attend", "attend") if is_dense else ("op", "op.out")

    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        s = Sizes(match, is_dense)
        _, q, context = _carved(s, match.workspace)
        q_nope, q_pe, out = match.view("q_nope"), match.view("q_pe"), match.view(out_name)
        kv_b, cache, rows = match.view("kv_b"), match.view("cache_in"), num_rows(match)
        scales = scale_view(match, "kv_b")
        most = min(int(match.attr("all", "k")), columns(match)) if is_dense else s.K
        return (
            native(
                match, name, symbol("absorb", match, "q_nope kv_b"), q_nope, q_pe, kv_b, scales,
                q, rows, s.T, s.H, s.Dn, s.R, s.Dv, s.C, *q_nope.strides[:2], *q_pe.strides[:2],
                float(match.attr(node, "scale")), scratch_bytes=ROOM_BYTES,
            ),
            native(
                match, name, f"attend_{match.layout('cache_in')}", q, cache,
                None if is_dense else match.view("selection"), match.view("positions"),
                match.view("q_starts"), match.view("page_table"), context, rows, s.T, s.H, s.R,
                s.C, most, *match.shape("page_table"), cache.shape[1],
                scratch_bytes=4 * HEADS * most + 8 * most,
            ),
            native(
                match, name, symbol("write_heads", match, f"kv_b {out_name}"), context, kv_b,
                scales, out, rows, s.T, s.H, s.Dn, s.Dv, s.C, out.strides[0],
            ),
        )  # fmt: skip

    return emit


def _attend(name: str, *, is_dense: bool) -> Lowering:
    def work(match: Match, knobs: Knobs) -> Work:
        s = Sizes(match, is_dense)
        flops = 2 * s.T * s.H * (s.C * (s.Dn + s.Dv) + s.K * (2 * s.C + s.R))
        # A request's rows see the same positions; what they select is another matter.
        apart = 1 if is_dense and s.T > s.B else s.T
        cached = apart * s.K * s.W * DTYPE_BYTES[match.dtype("cache_in")]
        moved = cached + value_bytes(match, "kv_b") + s.io_bytes
        return in_a_list(Work(moved, flops))

    out = "attend" if is_dense else "op.out"
    return Lowering(
        name=name,
        pattern=DENSE if is_dense else SPARSE,
        emit=_emit_attend(name, is_dense=is_dense),
        when=ON_HOST & _LATENTS & of_types(f"q_nope q_pe kv_b {out}", *_TYPES),
        row_invariant=not is_dense,  # one form in all programs: over a selection
        workspace=lambda match, knobs: _carved(Sizes(match, is_dense), None)[0].num_bytes,
        work=work,
    )


def _emit_index(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    name, q, weights = "cpu_native_index_topk", match.view("q"), match.view("weights")
    all_rows, heads, dim = match.shape("q")
    wide, chosen, positions = columns(match), match.view("topk"), match.view("positions")
    tile, rows = knobs["row_tile"], num_rows(match)
    logits = Carver(match.workspace).take("f32", min(tile, all_rows), wide)
    many = 1 if all_rows <= FEW_ROWS else ROWS_OF_CHUNK
    kernel = "index_logits_fp8" if match.is_scaled("q") else symbol("index_logits", match, "q")
    launches: list[Launch] = []
    for first in range(0, all_rows, tile):
        here = min(tile, all_rows - first)
        launches += (
            native(
                match, name, kernel, q, weights,
                match.view("cache_in"), positions, match.view("q_starts"),
                match.view("page_table"), logits, rows, first, here, heads, dim, chosen.shape[1],
                *match.shape("page_table"), match.shape("cache_in")[1], wide, many, *q.strides[:2],
                weights.strides[0], float(match.attr("logits", "scale")), *_scales_of_q(match),
                scratch_bytes=4 * ((heads + 3) * (dim + 4) + _widened(match)),
            ),
            native(
                match, name, "index_select", logits, positions, chosen, rows, first, here,
                chosen.shape[1], wide, scratch_bytes=8 * wide,
            ),
        )  # fmt: skip
    return tuple(launches)


def _scales_of_q(match: Match) -> tuple[Argument, ...]:
    """What the kernel of 8-bit queries and keys takes behind all else."""
    scales = scale_view(match, "q")
    if scales is None:
        return ()
    return scales, *scales.strides[:2], int(LAYOUTS[match.layout("cache_in")].is_paged)


def _widened(match: Match) -> int:
    """Numbers that are made f32 first, where they are not read as they lie."""
    _, heads, dim = match.shape("q")
    return (SPAN + heads) * dim if match.is_scaled("q") else 0


def _index_workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carver.take("f32", min(knobs["row_tile"], match.shape("q")[0]), columns(match))
    return carver.num_bytes


NATIVE_ATTENTION = (
    _attend("cpu_native_attend", is_dense=False),
    _attend("cpu_native_attend_dense", is_dense=True),
    Lowering(
        name="cpu_native_index_topk",
        pattern=INDEX_TOPK,
        emit=_emit_index,
        when=ON_HOST & _ROWS & _KEYS,
        row_invariant=True,
        knobs=(Knob("row_tile", (128, 32, 512)),),
        workspace=_index_workspace,
        work=lambda match, knobs: in_a_list(match.work()),
    ),
)
