"""Products with block-scaled fp8 weights on matrix units that multiply fp8. Knows no device.

The weight is read once as it lies; activations come in fp8, or are made two terms of fp8 first.
"""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.fp8_terms import carve_terms, num_terms, terms_of
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    Tiles,
    i32,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import (
    Predicate,
    axis_multiple,
    dtype,
    encoded_for_target,
    fact,
    of_rows,
    row_blocks,
    weight_blocks,
)
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Region

_NAME = "smxx_fp8_linear"
WEIGHT_FIRST = 1
"""Setting of the knob `side` with the weight on the matrix units' first side; 2 is the other."""
LEAST_SIDE = 64  # values on the first side that matrix units take
_MIN_BLOCKS = 2  # of a split by rule: shorter ones cost more to sum than they save
_GROUP = 8  # tiles of rows that take turns over the same weights


@dataclass(frozen=True, slots=True)
class Form:
    """How a product is cut: a program's tile, which side the weight stands on, warps, stages."""

    block_rows: int
    block_n: int
    swap: bool
    num_warps: int
    num_stages: int
    waves: int
    """Programs a compute unit that splits of K are to fill."""


_FORMS = {
    16: Form(16, 64, swap=True, num_warps=4, num_stages=6, waves=2),
    32: Form(32, 64, swap=True, num_warps=4, num_stages=5, waves=2),
    64: Form(64, 128, swap=True, num_warps=8, num_stages=4, waves=1),
    128: Form(128, 128, swap=False, num_warps=8, num_stages=3, waves=1),
}
"""By the rows of a tile."""


def _form(match: Match, knobs: Knobs) -> Form:
    """By rule where knobs are 0: the least tile that has all rows, else the largest."""
    rows = match.shape("x")[0]
    own = next((size for size in _FORMS if rows <= size), max(_FORMS))
    form = _FORMS[knobs["block_rows"] or own]
    swap = form.swap if knobs["side"] == 0 else knobs["side"] == WEIGHT_FIRST
    return Form(
        block_rows=form.block_rows,
        block_n=knobs["block_n"] or form.block_n,
        swap=swap or form.block_rows < LEAST_SIDE,
        num_warps=knobs["num_warps"] or form.num_warps,
        num_stages=knobs["num_stages"] or form.num_stages,
        waves=form.waves,
    )


def _programs(match: Match, form: Form) -> int:
    rows, n = match.shape("op.out")
    return -(-rows // form.block_rows) * -(-n // form.block_n)


def _splits(match: Match, knobs: Knobs) -> tuple[int, int]:
    """Splits of K and scale blocks of each: by rule as many as fill the compute units."""
    form = _form(match, knobs)
    blocks = -(-match.shape("weight")[1] // FP8_BLOCK)
    programs = _programs(match, form)
    filling = round(form.waves * match.target.compute_units / programs)
    wanted = knobs["splits"] or max(1, min(filling, blocks // _MIN_BLOCKS))
    each = -(-blocks // min(wanted, blocks))
    return -(-blocks // each), each


def _partial(match: Match, knobs: Knobs, carver: Carver) -> View | None:
    form, (splits, _) = _form(match, knobs), _splits(match, knobs)
    if splits == 1:
        return None
    return carver.take("f32", _programs(match, form), splits, form.block_rows, form.block_n)


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carve_terms(match, "x", carver)
    _partial(match, knobs, carver)
    return carver.num_bytes


def _zeroed(match: Match, knobs: Knobs) -> int:
    splits, _ = _splits(match, knobs)
    return 4 * _programs(match, _form(match, knobs)) if splits > 1 else 0


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, k = match.shape("x")
    n = match.shape("weight")[0]
    form, (splits, split_blocks) = _form(match, knobs), _splits(match, knobs)
    carver = Carver(match.workspace)
    x = terms_of(match, "x", carver, _NAME)
    partial = _partial(match, knobs, carver)
    programs = _programs(match, form)
    arrived = Carver(match.zeroed).take("i32", programs) if partial else real_rows(match)
    out = match.view("op.out")
    launch = triton_launch(
        match,
        "lostwax.backends.gpu_kernels.scaled_products:linear_tiles",
        {
            "x": x.tiles(form.block_rows),
            "x_scale": x.scale,
            "weight": Tiles(match.view("weight"), (form.block_n, FP8_BLOCK)),
            "weight_scale": match.view("weight:scale"),
            "out": out,
            "partial": partial or out,
            "arrived": arrived,
            "real_rows": real_rows(match),
            "num_rows": i32(rows),
            "N": i32(n),
            "K": i32(k),
            "split_blocks": i32(split_blocks),
            "splits": i32(splits),
            "scale_row": i32(x.scale_row),
            "scale_block": i32(x.scale_block),
            "out_stride": i32(out.strides[0]),
        },
        {
            "BLOCK_ROWS": form.block_rows,
            "BLOCK_N": form.block_n,
            "BLOCK_SCALE": FP8_BLOCK,
            "GROUP": _GROUP,
            "TERMS": x.count,
            "SWAP": int(form.swap),
            "SPLIT": int(splits > 1),
            "WIDE_DOT": 0,
        },
        grid=(programs, splits, 1),
        op=_NAME,
        num_warps=form.num_warps,
        num_stages=form.num_stages,
        rows_of=("out_stride",),
    )
    return (*x.launches, launch)


def fp8_flops(match: Match, flops: float, value: str) -> float:
    """Operations on fp8 in as many terms as `value` has, at the rate that the estimate takes."""
    rates = match.target.tflops
    own, fp8 = rates.get(match.dtype(value)), rates.get(match.target.fp8_encoding)
    return num_terms(match, value) * flops * (own / fp8 if own and fp8 else 1.0)


def _work(match: Match, knobs: Knobs) -> Work:
    base, form = match.work(), _form(match, knobs)
    splits, _ = _splits(match, knobs)
    rows, k = match.shape("x")
    padded = -(-rows // form.block_rows) * form.block_rows
    partial = 8 * splits * rows * match.shape("weight")[0] if splits > 1 else 0
    made = 0 if match.is_scaled("x") else 4 * rows * k  # two terms, written and read
    flops = fp8_flops(match, base.flops, "x") * padded / rows
    launches = 1 + (not match.is_scaled("x"))
    return Work(base.num_bytes + partial + made, flops, launches)


def weight_is_scaled(value: str) -> Predicate:
    """The weight has block scales."""
    return Predicate(lambda m: None if m.is_scaled(value) else f"{value} has no block scales")


def fp8_units(value: str) -> Predicate:
    """Matrix units multiply `value` in fp8: as it comes with scales, or bf16 in two terms."""

    def refusal(match: Match) -> str | None:
        got, encoding = match.dtype(value), match.target.fp8_encoding
        fits = got == encoding if match.is_scaled(value) else got == "bf16"
        return None if fits else f"{value} is {got}, wants bf16, or {encoding} with scales"

    return (
        fact("matrix_units", "wgmma", "tcgen05")
        & fact("tensor_maps", True)
        & fact("fp8_encoding", "f8E4M3FN")
        & row_blocks(value)
        & Predicate(refusal)
    )


_MAP_BORDER = 16  # bytes between rows that tensor maps read

FP8_LINEAR = Lowering(
    name=_NAME,
    pattern=Region.single(LinearOp),
    emit=_emit,
    when=fp8_units("x")
    & weight_is_scaled("weight")
    & weight_blocks("weight")
    & encoded_for_target("weight")
    & dtype("op.out", "f32", "bf16")
    & axis_multiple("x", 1, _MAP_BORDER)
    & of_rows("x"),
    knobs=(
        Knob("block_rows", (0, *_FORMS)),
        Knob("block_n", (0, 64, 128)),
        Knob("side", (0, 1, 2)),
        Knob("splits", (0, 1, 2, 3, 4, 6, 8, 12, 16)),
        Knob("num_warps", (0, 4, 8)),
        Knob("num_stages", (0, 2, 3, 4, 5, 6, 8)),
    ),
    workspace=_workspace,
    zeroed=_zeroed,
    work=_work,
)
