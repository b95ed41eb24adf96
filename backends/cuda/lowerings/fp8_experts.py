"""Routed experts of many rows on Hopper, fp8 all through: pairs sorted by expert, both products
over their slots (kernels/fp8_products.cu). Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import msgspec

from lostwax.backends.cuda.lowerings.fp8_products import (
    COLUMNS,
    KNOBS,
    ON_HOPPER,
    ProductForm,
    Slots,
    Weight,
    choose_form,
    product_launch,
    ticket_bytes,
)
from lostwax.backends.cuda.lowerings.fp8_tiles import PART, Extent, flops_of, moved_us, product_us
from lostwax.backends.gpu_kernels.lowerings.expert_tiles import ExpertTiles, as_rows
from lostwax.backends.gpu_kernels.lowerings.fp8_rows import as_bytes
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import (
    Terms,
    carve_terms,
    num_terms,
    terms_in,
)
from lostwax.backends.gpu_kernels.lowerings.grouped_experts import EXPERTS_WHEN
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    i32,
    next_power_of_two,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.predicates import axis_at_least
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.region import Region

_NAME = "sm90_fp8_experts"
_BLOCK_COLUMNS = 1024
LEAST_ROWS = 256
"""Of fewer an expert's tiles hold too few pairs: kernels that read each expert's weights once take
them."""
_TILES = ExpertTiles(_NAME, node="op", out="op.out")


@dataclass(frozen=True, slots=True)
class _Forms:
    gated: ProductForm
    down: ProductForm

    @staticmethod
    def of(match: Match, knobs: Knobs) -> _Forms:
        first, second = _extents(match, prod(match.shape("ids")))
        return _Forms(
            choose_form(first, knobs, grouped=True), choose_form(second, knobs, grouped=True)
        )


def _extents(match: Match, pairs: int, chosen: float = 1) -> tuple[Extent, Extent]:
    """The gated product and the last, over rows of pairs, of so many experts."""
    terms, target = num_terms(match, "x"), match.target
    units, room = target.compute_units, target.shared_memory_bytes
    _, inter, dim = match.shape("gate")
    first = Extent(pairs, inter, dim, terms, True, units, room, matrices=chosen)
    return first, Extent(pairs, dim, inter, terms, False, units, room, matrices=chosen)


@dataclass(frozen=True, slots=True)
class _Scratch:
    """Workspace: rows of the slots' pairs, what is gated, and what each pair gives, in bf16.

    The last lies where the first lay.
    """

    slots: Slots
    rows: View
    row_scale: View
    hidden: View
    hidden_scale: View
    of_pair: View

    @staticmethod
    def of(match: Match, carver: Carver) -> _Scratch:
        rows, top_k = match.shape("ids")
        _, inter, dim = match.shape("gate")
        tiles, terms = _TILES.num_tiles(match, 2 * PART), num_terms(match, "x")
        count = tiles * 2 * PART
        placed = Slots(carver.take("i32", count), carver.take("i32", tiles))
        gathered, given = (terms * count, dim), (rows * top_k, dim)
        shared = carver.take("u8", max(prod(gathered), DTYPE_BYTES["bf16"] * prod(given)))
        return _Scratch(
            slots=placed,
            rows=_matrix(shared, "f8E4M3FN", gathered),
            row_scale=carver.take("f32", count, -(-dim // FP8_BLOCK)),
            hidden=carver.take("f8E4M3FN", terms * count, inter),
            hidden_scale=carver.take("f32", -(-inter // FP8_BLOCK), count),
            of_pair=_matrix(shared, "bf16", given),
        )


def _matrix(view: View, dtype: str, shape: tuple[int, int]) -> View:
    return msgspec.structs.replace(view, dtype=dtype, shape=shape, strides=(shape[1], 1))


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carve_terms(match, "x", carver)
    _Scratch.of(match, carver)
    return carver.num_bytes


def _gather(match: Match, x: Terms, scratch: _Scratch) -> Launch:
    rows, top_k = match.shape("ids")
    (count,), width = scratch.slots.pair_of_slot.shape, x.values.shape[1]
    blocks = scratch.row_scale.shape[1]
    return triton_launch(
        match,
        "lostwax.backends.gpu_kernels.place_pairs:gather_pairs",
        {
            "x": as_bytes(x.values),
            "x_scale": x.scale,
            "out": as_bytes(scratch.rows),
            "out_scale": scratch.row_scale,
            "pair_of_slot": scratch.slots.pair_of_slot,
            "expert_of_tile": scratch.slots.expert_of_tile,
            "num_rows": i32(rows),
            "slots": i32(count),
            "width": i32(width),
            "blocks": i32(blocks),
            "x_stride": i32(x.values.strides[0]),
            "scale_row": i32(x.scale_row),
            "scale_block": i32(x.scale_block),
        },
        {
            "TOP_K": top_k,
            "TERMS": x.count,
            "BLOCK_ROWS": 2 * PART,
            "BLOCK": _BLOCK_COLUMNS,
            "BLOCK_BLOCKS": next_power_of_two(blocks),
        },
        grid=(count, 1, 1),
        op=_NAME,
        num_warps=2,
        rows_of=("width", "x_stride"),
    )


def _weight(match: Match, name: str) -> Weight:
    return Weight(as_rows(match.view(name)), match.view(f"{name}:scale"))


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    forms, carver = _Forms.of(match, knobs), Carver(match.workspace)
    x = terms_in(match, "x", carve_terms(match, "x", carver))
    scratch = _Scratch.of(match, carver)
    slots, count = scratch.slots, scratch.hidden_scale.shape[1]
    _, inter, dim = match.shape("gate")
    rows = Terms(scratch.rows, x.count, scratch.row_scale, scratch.row_scale.shape[1], 1, ())
    hidden = Terms(scratch.hidden, x.count, scratch.hidden_scale, 1, count, ())
    gated = product_launch(
        match, forms.gated, rows, (_weight(match, "gate"), _weight(match, "up")),
        scratch.hidden, inter, _NAME, slots=slots, out_scale=scratch.hidden_scale,
        power_of_two=match.is_scaled("x") and match.attr("op", "hidden_fmt") == "ue8m0",
    )  # fmt: skip
    down = product_launch(
        match, forms.down, hidden, (_weight(match, "down"),), scratch.of_pair, dim, _NAME,
        slots=slots,
    )  # fmt: skip
    return (
        _TILES.place(match, 2 * PART, x, slots.pair_of_slot, slots.expert_of_tile),
        _gather(match, x, scratch),
        gated,
        down,
        _TILES.combine(match, scratch.of_pair),
    )


def _work(match: Match, knobs: Knobs) -> Work:
    """The products' time, which has their bytes, and what is placed, gathered and combined; of the
    parts of each chosen expert the last is half full."""
    rows, top_k = match.shape("ids")
    experts, _, dim = match.shape("gate")
    forms, terms, pairs = _Forms.of(match, knobs), num_terms(match, "x"), rows * top_k
    chosen = experts * (1 - (1 - top_k / experts) ** rows) if top_k < experts else experts
    placed = 2 * terms * rows * dim + pairs * (2 * terms * dim + 2 * dim) + 4 * rows * dim
    extents = _extents(match, pairs + round(chosen * PART / 2), chosen)
    products = zip((forms.gated, forms.down), extents, strict=True)
    us = sum(product_us(form.tile, extent) for form, extent in products) + moved_us(placed)
    return Work(0, flops_of(match, "x", us), 5)


MANY_ROWS_EXPERTS = Lowering(
    name=_NAME,
    pattern=Region.single(ExpertsOp),
    emit=_emit,
    when=ON_HOPPER & axis_at_least("x", 0, LEAST_ROWS) & EXPERTS_WHEN,
    knobs=(COLUMNS, *KNOBS),
    workspace=_workspace,
    zeroed=ticket_bytes,
    work=_work,
)
