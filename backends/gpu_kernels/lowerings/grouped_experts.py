"""Routed experts over tiles of the pairs that chose them, fp8 all through. Knows no device."""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.fp8_linear import (
    MAP_BORDER,
    fp8_units,
    tiled_flops,
    weight_is_scaled,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_products import AHEAD, LEAST_SIDE, WEIGHT_FIRST
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import (
    Terms,
    carve_terms,
    num_terms,
    terms_of,
)
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    Tiles,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.experts import expert_bytes
from lostwax.backends.predicates import (
    axis_multiple,
    dtype,
    encoded_for_target,
    of_rows,
    weight_blocks,
)
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.region import Region

_NAME = "smxx_fp8_experts"
_KERNELS = "lostwax.backends.gpu_kernels"
_BLOCK_COLUMNS = 1024
_MOST_PAIRS = 1024  # that a program sorts at once


@dataclass(frozen=True, slots=True)
class Form:
    """How both products are cut, by the rows of a tile."""

    block_rows: int
    swap: bool
    group: int
    """Tiles that take turns over the same weights."""
    gated_warps: int
    gated_stages: int
    down_n: int
    down_warps: int
    down_stages: int
    ahead: bool = True
    """Whether scales are read ahead, too."""


_ROWS = (16, 32, 64, 128)
_FORMS = {
    (1, 16): Form(16, True, 2, 4, 4, 64, 4, 4),
    (1, 32): Form(32, True, 4, 8, 4, 128, 4, 4),
    (1, 64): Form(64, False, 4, 8, 5, 128, 4, 4),
    (1, 128): Form(128, False, 8, 8, 3, 128, 8, 3, ahead=False),
    (2, 16): Form(16, True, 2, 4, 4, 64, 4, 4),
    (2, 32): Form(32, True, 4, 8, 4, 128, 4, 4),
    (2, 64): Form(64, True, 4, 8, 4, 128, 8, 3),
    (2, 128): Form(128, False, 8, 8, 3, 128, 8, 3, ahead=False),
}
"""By terms and the rows of a tile. The forms that a rule chooses are within 5 % of the fastest
setting that `benchmarks/fp8_products.py` timed, as those of `fp8_products.RULES` are."""
_MOST_EACH = {16: 8.0, 32: 24.0, 64: 64.0}
"""Rows of an expert, on average, that tiles of so many rows are for."""


def choose_form(match: Match, knobs: Knobs) -> Form:
    """By rule where knobs are 0: by the rows that an expert has of even choices."""
    rows, top_k = match.shape("ids")
    each = rows * top_k / match.shape("gate")[0]
    own = next((size for size, most in _MOST_EACH.items() if each <= most), max(_ROWS))
    form = _FORMS[num_terms(match, "x"), knobs["block_rows"] or own]
    swap = form.swap if knobs["side"] == 0 else knobs["side"] == WEIGHT_FIRST
    return Form(
        block_rows=form.block_rows,
        swap=swap or form.block_rows < LEAST_SIDE,
        group=knobs["group"] or form.group,
        gated_warps=knobs["gated_warps"] or form.gated_warps,
        gated_stages=knobs["gated_stages"] or form.gated_stages,
        down_n=knobs["down_n"] or form.down_n,
        down_warps=knobs["down_warps"] or form.down_warps,
        down_stages=knobs["down_stages"] or form.down_stages,
        ahead=form.ahead if knobs["ahead"] == 0 else knobs["ahead"] == AHEAD,
    )


def num_tiles(match: Match, block_rows: int) -> int:
    """Tiles of so many pairs at most: every expert may leave one that is not full."""
    rows, top_k = match.shape("ids")
    pairs = rows * top_k
    return min(pairs, match.shape("gate")[0] + pairs // block_rows)


@dataclass(frozen=True, slots=True)
class Places:
    """Workspace of the launches."""

    pair_of_slot: View
    expert_of_tile: View
    hidden: View
    hidden_scale: View
    of_pair: View


def _places(match: Match, form: Form, carver: Carver) -> Places:
    rows, top_k = match.shape("ids")
    _, inter, dim = match.shape("gate")
    tiles = num_tiles(match, form.block_rows)
    slots = tiles * form.block_rows
    return Places(
        carver.take("i32", slots),
        carver.take("i32", tiles),
        carver.take("f8E4M3FN", num_terms(match, "x") * slots, inter),
        carver.take("f32", -(-inter // FP8_BLOCK), slots),
        carver.take("f32", rows * top_k, dim),
    )


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carve_terms(match, "x", carver)
    _places(match, choose_form(match, knobs), carver)
    return carver.num_bytes


def as_rows(view: View) -> View:
    """The matrices of all experts, one below another."""
    experts, rows, columns = view.shape
    return View(
        space=view.space,
        name=view.name,
        dtype=view.dtype,
        shape=(experts * rows, columns),
        strides=(columns, 1),
        offset=view.offset,
    )


def _weight(match: Match, name: str, rows: int) -> Tiles:
    return Tiles(as_rows(match.view(name)), (rows, FP8_BLOCK))


def place_launch(
    match: Match, block_rows: int, pair_of_slot: View, expert_of_tile: View, op: str
) -> Launch:
    """Sorts the pairs by expert into tiles of `block_rows` slots."""
    experts, (rows, top_k) = match.shape("gate")[0], match.shape("ids")
    return triton_launch(
        match,
        f"{_KERNELS}.place_pairs:place_pairs",
        {
            "ids": match.view("ids"),
            "pair_of_slot": pair_of_slot,
            "expert_of_tile": expert_of_tile,
            "real_rows": real_rows(match),
            "tiles": i32(num_tiles(match, block_rows)),
        },
        {
            "EXPERTS": experts,
            "TOP_K": top_k,
            "BINS": next_power_of_two(experts),
            "BLOCK_ROWS": block_rows,
            "BLOCK_PAIRS": min(_MOST_PAIRS, max(128, next_power_of_two(rows * top_k))),
        },
        grid=(experts, 1, 1),
        op=op,
    )


def _gated(match: Match, form: Form, x: Terms, places: Places) -> Launch:
    _, inter, dim = match.shape("gate")
    rows, top_k = match.shape("ids")
    tiles = num_tiles(match, form.block_rows)
    rounded = match.is_scaled("x") and match.attr("op", "hidden_fmt") == "ue8m0"
    return triton_launch(
        match,
        f"{_KERNELS}.grouped_experts:gated_tiles",
        {
            "x": x.values,
            "x_scale": x.scale,
            "gate": _weight(match, "gate", FP8_BLOCK),
            "gate_scale": match.view("gate:scale"),
            "up": _weight(match, "up", FP8_BLOCK),
            "up_scale": match.view("up:scale"),
            "hidden": places.hidden,
            "hidden_scale": places.hidden_scale,
            "pair_of_slot": places.pair_of_slot,
            "expert_of_tile": places.expert_of_tile,
            "num_rows": i32(rows),
            "tiles": i32(tiles),
            "x_stride": i32(x.values.strides[0]),
            "scale_row": i32(x.scale_row),
            "scale_block": i32(x.scale_block),
        },
        {
            "INTER": inter,
            "DIM": dim,
            "TOP_K": top_k,
            "BLOCK_ROWS": form.block_rows,
            "BLOCK_SCALE": FP8_BLOCK,
            "GROUP": form.group,
            "TERMS": x.count,
            "POWER_OF_TWO": int(rounded),
            "SWAP": int(form.swap),
            "AHEAD": form.gated_stages if form.ahead else 0,
            "WIDE_DOT": 0,
            "ROUND_FIRST": 0,
        },
        grid=(tiles * -(-inter // FP8_BLOCK), 1, 1),
        op=_NAME,
        num_warps=form.gated_warps,
        num_stages=form.gated_stages,
        rows_of=("x_stride",),
    )


def _down(match: Match, form: Form, terms: int, places: Places) -> Launch:
    _, inter, dim = match.shape("gate")
    tiles = num_tiles(match, form.block_rows)
    return triton_launch(
        match,
        f"{_KERNELS}.grouped_experts:down_tiles",
        {
            "hidden": Tiles(places.hidden, (form.block_rows, FP8_BLOCK)),
            "hidden_scale": places.hidden_scale,
            "down": _weight(match, "down", form.down_n),
            "down_scale": match.view("down:scale"),
            "of_pair": places.of_pair,
            "pair_of_slot": places.pair_of_slot,
            "expert_of_tile": places.expert_of_tile,
            "tiles": i32(tiles),
        },
        {
            "INTER": inter,
            "DIM": dim,
            "BLOCK_ROWS": form.block_rows,
            "BLOCK_N": form.down_n,
            "BLOCK_SCALE": FP8_BLOCK,
            "GROUP": form.group,
            "TERMS": terms,
            "SWAP": int(form.swap),
            "AHEAD": form.down_stages if form.ahead else 0,
            "WIDE_DOT": 0,
        },
        grid=(tiles * -(-dim // form.down_n), 1, 1),
        op=_NAME,
        num_warps=form.down_warps,
        num_stages=form.down_stages,
    )


def combine_launch(match: Match, of_pair: View, op: str) -> Launch:
    """Sums what the pairs of each row gave, by their weights."""
    experts, _, dim = match.shape("gate")
    rows, top_k = match.shape("ids")
    out = match.view("op.out")
    return triton_launch(
        match,
        f"{_KERNELS}.place_pairs:combine_pairs",
        {
            "of_pair": of_pair,
            "ids": match.view("ids"),
            "weights": match.view("weights"),
            "out": out,
            "real_rows": real_rows(match),
            "width": i32(dim),
            "out_stride": i32(out.strides[0]),
        },
        {"EXPERTS": experts, "TOP_K": top_k, "BLOCK": _BLOCK_COLUMNS},
        grid=(rows, -(-dim // _BLOCK_COLUMNS), 1),
        op=op,
        rows_of=("width", "out_stride"),
    )


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    form = choose_form(match, knobs)
    carver = Carver(match.workspace)
    x = terms_of(match, "x", carver, _NAME)
    places = _places(match, form, carver)
    return (
        *x.launches,
        place_launch(match, form.block_rows, places.pair_of_slot, places.expert_of_tile, _NAME),
        _gated(match, form, x, places),
        _down(match, form, x.count, places),
        combine_launch(match, places.of_pair, _NAME),
    )


def _work(match: Match, knobs: Knobs) -> Work:
    """Chosen experts once, what goes between the launches written and read, tiles filled up."""
    rows, top_k = match.shape("ids")
    experts, inter, dim = match.shape("gate")
    form, terms, pairs = choose_form(match, knobs), num_terms(match, "x"), rows * top_k
    chosen = experts * (1 - (1 - top_k / experts) ** rows) if top_k < experts else experts
    between = pairs * (2 * terms * inter + 8 * dim)
    moved = chosen * expert_bytes(match) + 2 * terms * rows * dim + between + 4 * rows * dim
    filled = max(1.0, chosen * form.block_rows / pairs) if pairs else 1.0
    flops = tiled_flops(match, 6 * pairs * inter * dim, "x", rows) * filled
    return Work(moved, flops, 4 + (terms == 2))


EXPERTS_WHEN = (
    fp8_units("x")
    & weight_is_scaled("gate")
    & weight_is_scaled("up")
    & weight_is_scaled("down")
    & weight_blocks("gate", "up", "down")
    & encoded_for_target("gate")
    & encoded_for_target("up")
    & encoded_for_target("down")
    & dtype("op.out", "f32", "bf16")
    & axis_multiple("gate", 2, MAP_BORDER)
    & axis_multiple("gate", 1, MAP_BORDER)
    & of_rows("x")
)

FP8_EXPERTS = Lowering(
    name=_NAME,
    pattern=Region.single(ExpertsOp),
    emit=_emit,
    when=EXPERTS_WHEN,
    knobs=(
        Knob("block_rows", (0, *_ROWS)),
        Knob("side", (0, 1, 2)),
        Knob("group", (0, 1, 2, 4, 8)),
        Knob("gated_warps", (0, 4, 8)),
        Knob("gated_stages", (0, 2, 3, 4, 5)),
        Knob("down_n", (0, 64, 128)),
        Knob("down_warps", (0, 4, 8)),
        Knob("down_stages", (0, 2, 3, 4, 5, 6)),
        Knob("ahead", (0, AHEAD, 2)),
    ),
    workspace=_workspace,
    work=_work,
)
