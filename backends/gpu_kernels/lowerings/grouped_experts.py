"""Routed experts over tiles of the pairs that chose them, fp8 all through, alone or with the shared
expert as one that every row chose. Knows no device.
"""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.expert_forms import KNOBS
from lostwax.backends.gpu_kernels.lowerings.expert_tiles import ExpertTiles
from lostwax.backends.gpu_kernels.lowerings.fp8_linear import (
    MAP_BORDER,
    fp8_units,
    weight_is_scaled,
)
from lostwax.backends.lowering import Lowering, Match
from lostwax.backends.predicates import (
    Predicate,
    axis_multiple,
    dtype,
    encoded_for_target,
    of_rows,
    weight_blocks,
)
from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.region import Node, Region

_ROUTED_WEIGHTS = ("gate", "up", "down")
_SHARED_WEIGHTS = ("w_gate", "w_up", "w_down")


def _in_tiles(*weights: str) -> Predicate:
    """The weights are fp8 in blocks, which tensor maps read."""
    found = weight_blocks(*weights)
    for weight in weights:
        found &= weight_is_scaled(weight) & encoded_for_target(weight)
    return found


_ROUTED_WHEN = (
    fp8_units("x")
    & _in_tiles(*_ROUTED_WEIGHTS)
    & axis_multiple("gate", 2, MAP_BORDER)
    & axis_multiple("gate", 1, MAP_BORDER)
    & of_rows("x")
)
EXPERTS_WHEN = _ROUTED_WHEN & dtype("op.out", "f32", "bf16")
"""`moe.experts` alone, by kernels that read weights by tensor maps."""
_ROUTED = ExpertTiles("smxx_fp8_experts", node="op", out="op.out")

FP8_EXPERTS = Lowering(
    name=_ROUTED.name,
    pattern=Region.single(ExpertsOp),
    emit=_ROUTED.emit,
    when=EXPERTS_WHEN,
    knobs=KNOBS,
    workspace=_ROUTED.workspace,
    work=_ROUTED.work,
)


def _has_sizes_of_routed(match: Match) -> str | None:
    """The shared expert's down fits if its gate does."""
    routed, shared = match.shape("gate")[1:], match.shape("w_gate")
    return None if routed == shared else f"the shared expert is {shared}, the routed are {routed}"


def _rounds_alike(match: Match) -> str | None:
    """Of scaled rows: both kinds of experts round their hidden rows by one rule."""
    if not match.is_scaled("x"):
        return None
    routed, shared = match.attr("routed", "hidden_fmt"), match.attr("hidden", "scale_fmt")
    same = routed == shared and match.scale("hidden") == match.scale("x")
    return None if same else f"hidden rows of the shared expert are {shared}, routed ones {routed}"


def _with_shared(name: str, *, quantised: bool) -> Lowering:
    """Routed experts, the shared one and their sum; `quantised` where x comes in fp8."""
    nodes = {
        "routed": Node("moe.experts", {n: n for n in ("x", "ids", "weights", *_ROUTED_WEIGHTS)}),
        "gated": Node("quant.linear", {"x": "x", "weight": "w_gate"}),
        "upped": Node("quant.linear", {"x": "x", "weight": "w_up"}),
        "act": Node("core.silu_mul", {"gate": "gated", "up": "upped"}),
    }
    if quantised:
        nodes["hidden"] = Node("quant.quantise", {"x": "act"})
    entering = "hidden" if quantised else "act"
    nodes["shared"] = Node("quant.linear", {"x": entering, "weight": "w_down"})
    nodes["out"] = Node("core.add", {"a": "routed", "b": "shared"})
    when = (
        _ROUTED_WHEN
        & _in_tiles(*_SHARED_WEIGHTS)
        & Predicate(_has_sizes_of_routed)
        & dtype("gated", "bf16")
        & dtype("upped", "bf16")
        & dtype("act", "bf16")
        & dtype("routed", "f32")
        & dtype("shared", "f32")
        & dtype("out", "f32", "bf16")
    )
    tiles = ExpertTiles(name, node="routed", out="out", shared=_SHARED_WEIGHTS)
    return Lowering(
        name=name,
        pattern=Region(nodes, ("out",)),
        emit=tiles.emit,
        when=when & Predicate(_rounds_alike) if quantised else when,
        knobs=KNOBS,
        workspace=tiles.workspace,
        work=tiles.work,
    )


FP8_MOE = _with_shared("smxx_fp8_moe", quantised=False)
FP8_MOE_QUANTISED = _with_shared("smxx_fp8_moe_quantised", quantised=True)
