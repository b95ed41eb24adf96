"""Products with block-scaled fp8 weights on matrix units that multiply fp8. Knows no device.

The weight is read once as it lies; activations come in fp8, or are made two terms of fp8 first.
"""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.fp8_products import (
    KNOBS,
    Product,
    carve_partial,
    cut,
    product_launch,
    zeroed_bytes,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import carve_terms, num_terms, terms_of
from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
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
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Region

_NAME = "smxx_fp8_linear"


def _product(match: Match, knobs: Knobs) -> Product:
    rows, k = match.shape("x")
    n, terms = match.shape("weight")[0], num_terms(match, "x")
    return cut(match, knobs, rows, n, k, terms, apart=False)


def _workspace(match: Match, knobs: Knobs) -> int:
    product, carver = _product(match, knobs), Carver(None)
    carve_terms(match, "x", carver)
    carve_partial(product, carver)
    return carver.num_bytes


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    product, carver = _product(match, knobs), Carver(match.workspace)
    x = terms_of(match, "x", carver, _NAME)
    weight = match.view("weight"), match.view("weight:scale")
    partial = carve_partial(product, carver)
    out = match.view("op.out")
    return (*x.launches, product_launch(match, product, x, weight, out, _NAME, partial=partial))


def fp8_flops(match: Match, flops: float, value: str) -> float:
    """Operations on fp8 in as many terms as `value` has, at the rate that the estimate takes."""
    rates = match.target.tflops
    own, fp8 = rates.get(match.dtype(value)), rates.get(match.target.fp8_encoding or "")
    return num_terms(match, value) * flops * (own / fp8 if own and fp8 else 1.0)


MANY_ROWS = 256
"""Rows from which on products are bound by operations, not by weights."""
_SHARE = 0.6
"""Of the target's fp8 rate that these kernels reach: 44 to 47 % of 1,750 TFLOP/s in the extend of
2,048 rows, five layers at full width, official formats, one H200, 2026-11-29."""
_SOME_ROWS, _SHARE_OF_SOME = 65, 0.4
"""The same of fewer, which take two tiles: of 128 rows, one term
(`benchmarks/results/2026-11-29-h200-fp8-products-2.json`)."""


def tiled_flops(match: Match, flops: float, value: str, rows: int) -> float:
    """Operations on fp8 by the Triton kernels: of many rows more, for the share that they reach."""
    share = _SHARE if rows >= MANY_ROWS else _SHARE_OF_SOME if rows >= _SOME_ROWS else 1.0
    return fp8_flops(match, flops, value) / share


def waiting(match: Match, product: Product) -> float:
    """How much longer a product of some rows takes because units wait for its last tiles."""
    tiles, units = product.programs * product.splits, match.target.compute_units
    if product.rows < _SOME_ROWS or not units:
        return 1.0
    return -(-tiles // units) * units / tiles


def _work(match: Match, knobs: Knobs) -> Work:
    base, product = match.work(), _product(match, knobs)
    partial = 8 * product.splits * product.rows * product.n if product.splits > 1 else 0
    made = 0 if product.terms == 1 else 4 * product.rows * product.k
    flops = tiled_flops(match, base.flops, "x", product.rows) * product.padded_rows / product.rows
    flops *= waiting(match, product)
    return Work(base.num_bytes + partial + made, flops, 1 + (made > 0))


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
        fact("matrix_units", "wgmma", "tcgen05", "mfma")
        & fact("fp8_encoding", "f8E4M3FN", "f8E4M3FNUZ")
        & row_blocks(value)
        & Predicate(refusal)
    )


MAP_BORDER = 16  # bytes between rows that tiles are read of, by tensor maps or whole words

LINEAR_WHEN = (
    fp8_units("x")
    & weight_is_scaled("weight")
    & weight_blocks("weight")
    & encoded_for_target("weight")
    & dtype("op.out", "f32", "bf16")
    & axis_multiple("x", 1, MAP_BORDER)
    & of_rows("x")
)

FP8_LINEAR = Lowering(
    name=_NAME,
    pattern=Region.single(LinearOp),
    emit=_emit,
    when=LINEAR_WHEN,
    knobs=KNOBS,
    workspace=_workspace,
    zeroed=lambda match, knobs: zeroed_bytes(_product(match, knobs)),
    work=_work,
)
