"""Lowerings whose rows do not depend on one another: what `--batch-invariant` chooses from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from lostwax.backends import predicates as P
from lostwax.backends.cpu.row_block import ROWS
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.attention import (
    LATENT_LAYOUTS,
    SPARSE,
    Sizes,
    absorbed_bytes,
    absorbed_work,
)
from lostwax.backends.portable.lowerings.calls import copies_of_rows, f32_bytes, launch, scale_view
from lostwax.backends.portable.lowerings.experts import (
    IN_BLOCKS,
    expert_bytes,
    expert_views,
    hidden_consts,
)
from lostwax.backends.portable.lowerings.fp8 import hadamard_signs
from lostwax.backends.portable.lowerings.indexer import (
    INDEX_LAYOUTS,
    INDEX_TOPK,
    TOPK_CALLS,
    columns,
    topk_bytes,
)
from lostwax.ir.contract.program import Const, Launch
from lostwax.ir.dialects.dsa import HadamardOp
from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Region

ON_HOST = P.not_captured() & P.host_memory()
KERNELS = "lostwax.backends.cpu.kernels.row_by_row:"
WEIGHT_TILE = 4096
"""Rows of a weight that are converted at once; a knob could change a row's last bits."""


def _blocks(rows: int) -> int:
    return -(-rows // ROWS)


def _emit_linear(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (
        match.view("x"),
        scale_view(match, "x"),
        match.view("weight"),
        scale_view(match, "weight"),
        match.view("op.out"),
    )
    consts = {"row_tile": WEIGHT_TILE}
    return launch("cpu_linear_blocks", KERNELS + "linear", views, consts, capturable=False)


def _linear_work(match: Match, knobs: Knobs) -> Work:
    work, blocks = match.work(), _blocks(match.shape("x")[0])
    weight = f32_bytes(*match.shape("weight"))
    return Work(work.num_bytes + blocks * weight, work.flops, 3 + 5 * blocks)


def _linear_bytes(match: Match, knobs: Knobs) -> int:
    rows, cols = match.shape("weight")
    wide = f32_bytes(match.shape("x")[0], cols + rows)
    return 4 * f32_bytes(min(rows, WEIGHT_TILE), cols) + 2 * wide + f32_bytes(ROWS, rows + cols)


def _emit_hadamard(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("x"), match.step("signs"), match.view("op.out"))
    return launch("cpu_hadamard_blocks", KERNELS + "hadamard", views, capturable=False)


def _hadamard_work(match: Match, knobs: Knobs) -> Work:
    *rows, _ = match.shape("x")
    return replace(match.work(), launches=3 + 5 * _blocks(prod(rows)))


def _emit_attend(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    names = ("q_nope", "q_pe", "kv_b", "kv_b:scale", "cache_in", "selection", "positions")
    first = [scale_view(match, "kv_b") if n == "kv_b:scale" else match.view(n) for n in names]
    rest = (match.view("q_starts"), match.view("page_table"), match.view("op.out"))
    consts: dict[str, Const] = {
        "scale": match.attr("op", "scale"),
        "layout": match.layout("cache_in"),
    }
    return launch("cpu_attend_rows", KERNELS + "attend", (*first, *rest), consts, capturable=False)


def _attend_work(match: Match, knobs: Knobs) -> Work:
    s = Sizes(match, is_dense=False)
    return absorbed_work(s, 6 + 20 * s.T)


def _emit_index(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    names = ("weights", "cache_in", "positions", "q_starts", "page_table", "topk")
    views = (match.view("q"), scale_view(match, "q"), *(match.view(n) for n in names))
    consts = {"scale": match.attr("logits", "scale"), "layout": match.layout("cache_in")}
    return launch("cpu_index_topk_rows", KERNELS + "index_topk", views, consts, capturable=False)


def _index_work(match: Match, knobs: Knobs) -> Work:
    rows, heads, _ = match.shape("q")
    work, wide = match.work(), columns(match)
    moved = work.num_bytes + 3 * f32_bytes(rows, heads, wide) + 20 * rows * wide
    return Work(moved, work.flops, 6 + (8 + TOPK_CALLS) * rows)


def _index_bytes(match: Match, knobs: Knobs) -> int:
    rows, heads, dim = match.shape("q")
    wide = columns(match)
    copies = copies_of_rows(match, "cache_in")
    keys = copies * f32_bytes(wide, dim) + 2 * f32_bytes(heads, wide + rows * dim)
    return keys + topk_bytes(1, wide) + 3 * f32_bytes(*match.shape("topk"))


def _emit_experts(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views, consts = expert_views(match), hidden_consts(match)
    return launch("cpu_experts_blocks", KERNELS + "experts", views, consts, capturable=False)


def _experts_work(match: Match, knobs: Knobs) -> Work:
    tokens, top_k = match.shape("ids")
    experts, inter, dim = match.shape("gate")
    used = min(experts, tokens * top_k)
    moved = used * (expert_bytes(match) + 2 * 3 * f32_bytes(inter, dim))
    return Work(moved, match.work().flops, 15 + used * 24)


def _experts_bytes(match: Match, knobs: Knobs) -> int:
    tokens, top_k = match.shape("ids")
    _, inter, dim = match.shape("gate")
    pairs, rows = f32_bytes(tokens * top_k, 2 * dim + 4), f32_bytes(tokens, 5 * inter + 4 * dim)
    return pairs + rows + 4 * f32_bytes(inter, dim)


def _rows_apart(
    name: str,
    pattern: Region,
    emit: Callable[[Match, Knobs], tuple[Launch, ...]],
    work: Callable[[Match, Knobs], Work],
    allocates: Callable[[Match, Knobs], int],
) -> Lowering:
    return Lowering(
        name=name,
        pattern=pattern,
        emit=emit,
        when=ON_HOST,
        row_invariant=True,
        work=work,
        allocates=allocates,
    )


CPU_ROW_BY_ROW = (
    replace(
        _rows_apart(
            "cpu_linear_blocks", Region.single(LinearOp), _emit_linear, _linear_work, _linear_bytes
        ),
        when=ON_HOST & P.weight_blocks("weight") & P.row_blocks("x"),
    ),
    replace(
        _rows_apart(
            "cpu_hadamard_blocks",
            Region.single(HadamardOp),
            _emit_hadamard,
            _hadamard_work,
            lambda match, knobs: 4 * f32_bytes(*match.shape("x")),
        ),
        prepare=hadamard_signs,
    ),
    replace(
        _rows_apart(
            "cpu_attend_rows",
            SPARSE,
            _emit_attend,
            _attend_work,
            lambda match, knobs: absorbed_bytes(Sizes(match, is_dense=False), 1),
        ),
        when=ON_HOST & LATENT_LAYOUTS & P.weight_blocks("kv_b"),
    ),
    replace(
        _rows_apart("cpu_index_topk_rows", INDEX_TOPK, _emit_index, _index_work, _index_bytes),
        when=ON_HOST & INDEX_LAYOUTS & P.row_blocks("q"),
    ),
    replace(
        _rows_apart(
            "cpu_experts_blocks",
            Region.single(ExpertsOp),
            _emit_experts,
            _experts_work,
            _experts_bytes,
        ),
        when=ON_HOST & IN_BLOCKS,
    ),
)
