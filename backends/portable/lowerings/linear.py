"""Lowerings of products with stored weights; gate and up as one product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import Emit, f32_bytes, launch, scale_view
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Launch, View
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

# Rows below which a form takes `factor` as long as the other. torch.mm on two Zen 4 cores, fp32,
# torch 2.13, weights from memory, transposed / row-major: 0.61 at 1 row, 0.68 at 2, about 1 at 4,
# 1.2 to 1.35 at 8, 1.15 to 1.28 at 16, 1.08 at 64, 1.02 from 128 on.
ROW_MAJOR_LOSS = ((3, 1.55),)
TRANSPOSED_LOSS = ((3, 1.0), (6, 1.05), (32, 1.2), (128, 1.08), (1 << 31, 1.02))


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
    losses = TRANSPOSED_LOSS if is_transposed else ROW_MAJOR_LOSS
    factor = next((factor for below, factor in losses if rows < below), 1.0)
    return replace(work, num_bytes=work.num_bytes * factor, flops=work.flops * factor)


def _is_converted(match: Match) -> bool:
    dtypes = {match.dtype("x"), match.dtype("weight"), match.dtype("op.out")}
    return len(dtypes) > 1


_CONVERTED_BYTES = 25
"""Read and written of a number while a weight is converted: its operators widen, multiply by the
scales and round in turn. 6.6 ms for 1.2e9 numbers at 4.46 TB/s (`benchmarks/full_step.py`, prefill
of 2,048 rows with bf16 activations, one H200, 2026-11-29)."""


def _converted_share(match: Match) -> float:
    """How much longer its operations take than at the rate of x: where x and what is written have
    two types, both operands are widened to f32 (`kernels/linear.py`)."""
    own, wide = (match.target.tflops.get(dtype) for dtype in (match.dtype("x"), "f32"))
    same = match.dtype("x") == match.dtype("op.out")
    return own / wide if own and wide and not same else 1.0


def _linear_work(is_transposed: bool) -> Callable[[Match, Knobs], Work]:
    def work(match: Match, knobs: Knobs) -> Work:
        plain = match.work()
        if not _is_converted(match):
            return weight_pass(plain, match.shape("x")[0], is_transposed)
        rows, cols = match.shape("weight")
        made = _CONVERTED_BYTES * rows * cols
        tiles = -(-rows // knobs["row_tile"])
        rate = match.target.tflops.get(match.dtype("x"), 0.0) * 1e12
        waited = made / (match.target.bandwidth_gbps * 1e9)  # the product begins when it is made
        flops = plain.flops * _converted_share(match) + waited * rate
        return Work(plain.num_bytes + made, flops, 5 * tiles)

    return work


def _emit_linear(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (
        match.view("x"),
        scale_view(match, "x"),
        match.view("weight"),
        scale_view(match, "weight"),
        match.view("op.out"),
    )
    return launch("portable_linear", "linear:linear", views, {"row_tile": knobs["row_tile"]})


def _emit_transposed(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    weight = transposed(match.view("weight"))
    views = (match.view("x"), scale_view(match, "x"), weight, None, match.view("op.out"))
    name = "portable_linear_transposed"
    return launch(name, "linear:linear", views, {"row_tile": knobs["row_tile"]})


def _linear_allocates(match: Match, knobs: Knobs) -> int:
    if not _is_converted(match):
        return 0
    rows, cols = match.shape("weight")
    tile = min(rows, knobs["row_tile"])
    return 2 * f32_bytes(tile, cols) + f32_bytes(match.shape("x")[0], cols + tile)


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
        allocates=lambda match, knobs: 3 * f32_bytes(*match.shape("act")),
    )


LINEAR = (
    Lowering(
        name="portable_linear",
        pattern=Region.single(LinearOp),
        emit=_emit_linear,
        when=P.weight_blocks("weight") & P.row_blocks("x"),
        knobs=(ROW_TILE,),
        work=_linear_work(is_transposed=False),
        allocates=_linear_allocates,
    ),
    Lowering(
        name="portable_linear_transposed",
        pattern=Region.single(LinearOp),
        emit=_emit_transposed,
        when=P.plain("weight") & P.row_blocks("x"),
        knobs=(ROW_TILE,),
        weights={"weight": TRANSPOSED},
        work=_linear_work(is_transposed=True),
        allocates=_linear_allocates,
    ),
    _gate_up("portable_gate_up", GATE_UP, is_transposed=False),
    _gate_up("portable_gate_up_transposed", GATE_UP_TRANSPOSED, is_transposed=True),
)
