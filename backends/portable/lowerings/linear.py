"""Lowerings of products with stored weights; gate and up as one product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import Emit, f32_bytes, launch, scale_view
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.program import DTYPE_BYTES, Launch, View
from lostwax.ir.contract.weights import WeightForm
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Node, Region

TRANSPOSED = WeightForm(name="transposed", perm=(1, 0))
GATE_UP = WeightForm(name="gate_up", concat=("w_gate", "w_up"))
GATE_UP_TRANSPOSED = WeightForm(name="gate_up_transposed", perm=(1, 0), concat=("w_gate", "w_up"))

GATED = Region(
    {
        "gate": Node("quant.linear", {"x": "x", "weight": "w_gate"}),
        "up": Node("quant.linear", {"x": "x", "weight": "w_up"}),
        "act": Node("core.silu_mul", {"gate": "gate", "up": "up"}),
    },
    ("act",),
)

ROW_TILE = Knob("row_tile", (4096, 1024, 16384))
"""Rows of a weight that are converted at once."""

ROW_MAJOR_READ = 1.6
"""How much longer a one-row product takes on a row-major weight than on a transposed one.

torch 2.13 on two Zen 4 cores, fp32, weights from memory: 65 us against 48 (512 x 512), 250 against
157 (2048 x 512), 1006 against 576 (8192 x 512). At 4 rows both are equal.
"""

TRANSPOSED_WORK = 1.12
"""The same at 32 rows the other way round: 101 us against 118, 413 against 461. Equal at 512."""


def transposed(view: View) -> View:
    """The logical [..., N, K] view of a weight that is stored as [..., K, N]."""
    *batch, rows, cols = view.shape
    *outer, row_stride, col_stride = view.strides
    return View(
        space=view.space,
        name=view.name,
        dtype=view.dtype,
        shape=(*batch, cols, rows),
        strides=(*outer, col_stride, row_stride),
        offset=view.offset,
    )


def weight_pass(work: Work, rows: int, is_transposed: bool) -> Work:
    """The work of a product over `rows` rows, by how the weight lies."""
    if rows == 1 and not is_transposed:
        return replace(work, num_bytes=work.num_bytes * ROW_MAJOR_READ)
    if 8 <= rows < 256 and is_transposed:
        factor = TRANSPOSED_WORK
        return replace(work, num_bytes=work.num_bytes * factor, flops=work.flops * factor)
    return work


def _is_converted(match: Match) -> bool:
    dtypes = {match.dtype("x"), match.dtype("weight"), match.dtype("op.out")}
    return len(dtypes) > 1


def _linear_work(is_transposed: bool) -> Callable[[Match, Knobs], Work]:
    def work(match: Match, knobs: Knobs) -> Work:
        plain = match.work()
        if not _is_converted(match):
            return weight_pass(plain, match.shape("x")[0], is_transposed)
        rows, cols = match.shape("weight")
        moved = plain.num_bytes + 2 * f32_bytes(rows, cols)  # written once, read once
        tiles = -(-rows // knobs["row_tile"])
        return replace(plain, num_bytes=moved, launches=5 * tiles)

    return work


def _emit_linear(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (
        match.view("x"),
        match.view("weight"),
        scale_view(match, "weight"),
        match.view("op.out"),
    )
    return launch("portable_linear", "linear:linear", views, {"row_tile": knobs["row_tile"]})


def _emit_transposed(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("x"), transposed(match.view("weight")), None, match.view("op.out"))
    name = "portable_linear_transposed"
    return launch(name, "linear:linear", views, {"row_tile": knobs["row_tile"]})


def _linear_allocates(match: Match, knobs: Knobs) -> int:
    if not _is_converted(match):
        return 0
    rows, cols = match.shape("weight")
    tile = min(rows, knobs["row_tile"])
    return 4 * f32_bytes(tile, cols) + f32_bytes(match.shape("x")[0], cols + tile)


def same_dtype(value: str, other: str) -> Predicate:
    """Both values have one element type."""

    def refusal(match: Match) -> str | None:
        one, two = match.dtype(value), match.dtype(other)
        return None if one == two else f"{value} is {one} but {other} is {two}"

    return Predicate(refusal)


def _emit_gate_up(name: str, is_transposed: bool) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        stored = match.view("w_gate")
        weight = transposed(stored) if is_transposed else stored
        return launch(
            name, "linear:gate_up", (match.view("x"), weight, match.view("act"), match.workspace)
        )

    return emit


def _gate_up_bytes(match: Match, knobs: Knobs) -> int:
    rows, wide = match.shape("x")[0], match.shape("w_gate")[0] + match.shape("w_up")[0]
    return rows * wide * DTYPE_BYTES[match.dtype("x")]


GATED_PLAIN = (
    P.plain("w_gate") & P.plain("w_up")
    & same_dtype("w_gate", "x") & same_dtype("w_up", "x")
    & same_dtype("gate", "x") & same_dtype("up", "x")
)  # fmt: skip


def _gate_up(name: str, form: WeightForm, is_transposed: bool) -> Lowering:
    def work(match: Match, knobs: Knobs) -> Work:
        return weight_pass(replace(match.work(), launches=3), match.shape("x")[0], is_transposed)

    return Lowering(
        name=name,
        pattern=GATED,
        emit=_emit_gate_up(name, is_transposed),
        when=GATED_PLAIN,
        weights={"w_gate": form},
        workspace=_gate_up_bytes,
        work=work,
        allocates=lambda match, knobs: 2 * f32_bytes(*match.shape("act")),
    )


LINEAR = (
    Lowering(
        name="portable_linear",
        pattern=Region.single(LinearOp),
        emit=_emit_linear,
        knobs=(ROW_TILE,),
        work=_linear_work(is_transposed=False),
        allocates=_linear_allocates,
    ),
    Lowering(
        name="portable_linear_transposed",
        pattern=Region.single(LinearOp),
        emit=_emit_transposed,
        when=P.plain("weight"),
        knobs=(ROW_TILE,),
        weights={"weight": TRANSPOSED},
        work=_linear_work(is_transposed=True),
        allocates=_linear_allocates,
    ),
    _gate_up("portable_gate_up", GATE_UP, is_transposed=False),
    _gate_up("portable_gate_up_transposed", GATE_UP_TRANSPOSED, is_transposed=True),
)
