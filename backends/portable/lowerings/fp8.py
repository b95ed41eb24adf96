"""Lowerings of what fp8 needs beside the products: the rotation, and the rounding with scales."""

from __future__ import annotations

from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import KERNELS, f32_bytes, launch, torch_calls
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.scale_layout import BlockScale
from lostwax.ir.contract.step import StepOp
from lostwax.ir.dialects.dsa import HadamardOp
from lostwax.ir.dialects.quant import QuantiseOp
from lostwax.ir.region import Region


def hadamard_signs(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
    """`signs`: f32 [D, D] of +-1."""
    width = match.shape("x")[-1]
    op = StepOp(
        function=KERNELS + "hadamard:signs",
        inputs=(),
        outputs=(("signs", "f32", (width, width)),),
    )
    return (op,)


def _emit_hadamard(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("x"), match.step("signs"), match.view("op.out"))
    return launch("portable_hadamard", "hadamard:hadamard", views)


def _emit_quantise(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (match.view("x"), match.view("op.out"), match.view("op.out:scale"))
    scale = match.scale("op.out")
    assert isinstance(scale, BlockScale)  # the op's verifier
    consts = {"scale_fmt": match.attr("op", "scale_fmt"), "block": scale.cols}
    return launch("portable_quantise", "fp8:quantise", views, consts)


FP8 = (
    Lowering(
        name="portable_hadamard",
        pattern=Region.single(HadamardOp),
        emit=_emit_hadamard,
        prepare=hadamard_signs,
        work=torch_calls(4),
        allocates=lambda match, knobs: 2 * f32_bytes(*match.shape("x")),
    ),
    Lowering(
        name="portable_quantise",
        pattern=Region.single(QuantiseOp),
        emit=_emit_quantise,
        row_invariant=True,
        work=torch_calls(10),
        allocates=lambda match, knobs: 6 * f32_bytes(*match.shape("x")),
    ),
)
