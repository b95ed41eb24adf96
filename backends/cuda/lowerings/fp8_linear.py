"""Products of many rows with block-scaled fp8 weights on Hopper: single, and joined.

Activations come in fp8, or are made two terms of fp8 first. Knows no device.
"""

from __future__ import annotations

from lostwax.backends.cuda.lowerings.fp8_products import (
    COLUMNS,
    KNOBS,
    MANY_ROWS_ON_HOPPER,
    ROWS,
    ProductForm,
    Weight,
    choose_form,
    product_launch,
    rows_between,
    ticket_bytes,
)
from lostwax.backends.cuda.lowerings.fp8_tiles import Extent, flops_of, moved_us, product_us
from lostwax.backends.gpu_kernels.lowerings.fp8_joined import (
    GATED_WHEN,
    JOINED,
    PROJECTED,
    PROJECTED_WHEN,
    projected_launch,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_linear import LINEAR_WHEN
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import carve_terms, num_terms, terms_of
from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.linear import GATE_UP, GATED
from lostwax.backends.predicates import dtype
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Region

_LINEAR, _GATE_UP, _PROJECTIONS = "sm90_fp8_linear", "sm90_fp8_gate_up", "sm90_fp8_projections"


def _extent(match: Match, columns: int, *, gated: bool = False) -> Extent:
    (rows, k), target = match.shape("x"), match.target
    units, room = target.compute_units, target.shared_memory_bytes
    return Extent(rows, columns, k, num_terms(match, "x"), gated, units, room)


def _form(match: Match, knobs: Knobs, columns: int, *, gated: bool = False) -> ProductForm:
    return choose_form(_extent(match, columns, gated=gated), knobs)


def _weight(match: Match, name: str) -> Weight:
    return Weight(match.view(name), match.view(f"{name}:scale"))


def _work(match: Match, knobs: Knobs, extent: Extent, planes: int = 0) -> Work:
    """The product's time, which has its bytes, terms where they are made, and `planes` bytes
    written and read."""
    made = 4 * extent.rows * extent.k if extent.terms == 2 else 0
    us = product_us(choose_form(extent, knobs).tile, extent) + moved_us(made + 2 * planes)
    return Work(0, flops_of(match, "x", us), 1 + (made > 0) + (planes > 0))


def _terms_bytes(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carve_terms(match, "x", carver)
    return carver.num_bytes


def _emit_linear(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    x = terms_of(match, "x", Carver(match.workspace), _LINEAR)
    columns = match.shape("weight")[0]
    form = _form(match, knobs, columns)
    weights, out = (_weight(match, "weight"),), match.view("op.out")
    return (*x.launches, product_launch(match, form, x, weights, out, columns, _LINEAR))


def _emit_gate_up(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    x = terms_of(match, "x", Carver(match.workspace), _GATE_UP)
    columns, joined = match.shape("act")[1], _weight(match, "w_gate")
    scale_rows = columns // FP8_BLOCK
    gate, up = (
        Weight(
            rows_between(joined.values, i * columns, columns),
            rows_between(joined.scale, i * scale_rows, scale_rows),
        )
        for i in (0, 1)
    )
    form, out = _form(match, knobs, columns, gated=True), match.view("act")
    return (*x.launches, product_launch(match, form, x, (gate, up), out, columns, _GATE_UP))


def _gate_up_work(match: Match, knobs: Knobs) -> Work:
    columns = match.shape("act")[1]
    return _work(match, knobs, _extent(match, columns, gated=True))


def _linear_work(match: Match, knobs: Knobs) -> Work:
    return _work(match, knobs, _extent(match, match.shape("weight")[0]))


def _joined_columns(match: Match) -> int:
    return sum(match.shape(weight)[0] for weight in JOINED.concat)


def _planes(match: Match, carver: Carver) -> View:
    """The joined product [1, rows, columns] in bf16."""
    return carver.take("bf16", 1, match.shape("x")[0], _joined_columns(match))


def _projections_bytes(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carve_terms(match, "x", carver)
    _planes(match, carver)
    return carver.num_bytes


def _emit_projections(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    carver = Carver(match.workspace)
    x = terms_of(match, "x", carver, _PROJECTIONS)
    planes, columns = _planes(match, carver), _joined_columns(match)
    form = _form(match, knobs, columns)
    weights = (_weight(match, JOINED.concat[0]),)
    product = product_launch(match, form, x, weights, planes, columns, _PROJECTIONS)
    return (*x.launches, product, projected_launch(match, planes, _PROJECTIONS))


def _projections_work(match: Match, knobs: Knobs) -> Work:
    rows, columns = match.shape("x")[0], _joined_columns(match)
    return _work(match, knobs, _extent(match, columns), planes=2 * rows * columns)


MANY_ROWS_LINEAR = Lowering(
    name=_LINEAR,
    pattern=Region.single(LinearOp),
    emit=_emit_linear,
    when=MANY_ROWS_ON_HOPPER & LINEAR_WHEN,
    knobs=(ROWS, COLUMNS, *KNOBS),
    workspace=_terms_bytes,
    zeroed=ticket_bytes,
    work=_linear_work,
)

MANY_ROWS_GATE_UP = Lowering(
    name=_GATE_UP,
    pattern=GATED,
    emit=_emit_gate_up,
    when=MANY_ROWS_ON_HOPPER & GATED_WHEN & dtype("act", "bf16"),
    knobs=(ROWS, COLUMNS, *KNOBS),
    weights={"w_gate": GATE_UP},
    workspace=_terms_bytes,
    zeroed=ticket_bytes,
    work=_gate_up_work,
)

MANY_ROWS_PROJECTIONS = Lowering(
    name=_PROJECTIONS,
    pattern=PROJECTED,
    emit=_emit_projections,
    when=MANY_ROWS_ON_HOPPER & PROJECTED_WHEN,
    knobs=(ROWS, COLUMNS, *KNOBS),
    weights={"w_q": JOINED},
    workspace=_projections_bytes,
    zeroed=ticket_bytes,
    work=_projections_work,
)
