"""Small inputs of the kernels of routing and experts, as plain values. Runs nothing."""

from __future__ import annotations

import numpy as np
from plain_case import REAL, ROWS, TILED_REAL, TILED_ROWS, Attributes, Case, normal

from lostwax.backends.gpu_kernels.lowerings.experts import EXPERTS
from lostwax.backends.gpu_kernels.lowerings.grouped_experts import (
    FP8_EXPERTS,
    FP8_MOE,
    FP8_MOE_QUANTISED,
)
from lostwax.backends.gpu_kernels.lowerings.route import ROUTE, ROUTE_ROWS
from lostwax.backends.proof.plain_match import Value
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, FP8_ROW_BLOCKS

OWN_ROWS = 8
"""So few that tiles of scaled rows find their pairs themselves."""


def route() -> Case:
    """Two of eight experts; rows behind the real ones get none."""
    attributes: Attributes = {
        ("op", "n_group"): 2, ("op", "topk_group"): 1, ("op", "top_k"): 2,
        ("op", "normalise"): True, ("op", "scale"): 2.5,
    }  # fmt: skip
    case = Case(ROUTE, ROWS, REAL, attributes, of_rows=("logits",))
    case.give("logits", normal(ROWS, 8), "f32")
    case.give("bias", normal(8), "f32")
    case.give("positions", np.arange(ROWS), "i32")
    case.values |= {"op.ids": Value((ROWS, 2), "i32"), "op.weights": Value((ROWS, 2), "f32")}
    case.outputs = ("op.ids", "op.weights")
    return case


def route_rows(rows: int, real: int, experts: int, dim: int) -> Case:
    """Two of the experts, of two groups; rows behind the real ones get none."""
    attributes: Attributes = {
        ("routed", "n_group"): 4, ("routed", "topk_group"): 2, ("routed", "top_k"): 2,
        ("routed", "normalise"): True, ("routed", "scale"): 2.5,
    }  # fmt: skip
    case = Case(ROUTE_ROWS, rows, real, attributes, of_rows=("x",))
    case.give("x", normal(rows, dim), "bf16")
    case.give("weight", normal(experts, dim) / dim**0.5, "bf16")
    case.give("bias", 0.1 * normal(experts), "f32")
    case.give("positions", np.where(np.arange(rows) == 1, -1, np.arange(rows)), "i32")
    case.values["logits"] = Value((rows, experts), "f32")
    case.outputs = ("routed.ids", "routed.weights")
    case.values |= {
        "routed.ids": Value((rows, 2), "i32"),
        "routed.weights": Value((rows, 2), "f32"),
    }
    return case


def experts() -> Case:
    """Two of three experts; ids behind the real rows name one."""
    case = Case(EXPERTS, ROWS, REAL, of_rows=("x", "ids", "weights"), outputs=("op.out",))
    case.give("x", normal(ROWS, 40), "f32")
    case.give("ids", np.array([[0, 2], [1, -1], [2, 1], [0, 1], [1, 2]]), "i32")
    case.give("weights", np.abs(normal(ROWS, 2)), "f32")
    for name, shape in {"gate": (3, 20, 40), "up": (3, 20, 40), "down": (3, 40, 20)}.items():
        case.give(name, normal(*shape) + len(name), "f32")
    case.values["op.out"] = Value((ROWS, 40), "f32")
    return case


def grouped_experts(scaled: bool, rows: int = TILED_ROWS, **knobs: int) -> Case:
    """Two of three experts of 144 rows of 160, one without pairs; no pair of the last has one."""
    dim, inter = 160, 144
    attributes: Attributes = {("op", "hidden_fmt"): "ue8m0"} if scaled else {}
    real = min(TILED_REAL, rows - 1)
    case = Case(FP8_EXPERTS, rows, real, attributes, knobs, outputs=("op.out",))
    case.of_rows = ("x", "x:scale", "ids", "weights") if scaled else ("x", "ids", "weights")
    case.give("x", normal(rows, dim), "f8E4M3FN" if scaled else "bf16",
              FP8_ROW_BLOCKS if scaled else None)  # fmt: skip
    if scaled:
        case.give("x:scale", np.abs(normal(rows, 2)), "f32")
    chosen = np.random.default_rng(3).permuted(np.tile([0, 2, -1], (rows, 1)), axis=1)[:, :2]
    case.give("ids", chosen, "i32")
    case.give("weights", np.abs(normal(rows, 2)), "f32")
    for name, shape in {
        "gate": (3, inter, dim), "up": (3, inter, dim), "down": (3, dim, inter),
    }.items():  # fmt: skip
        case.give(name, normal(*shape) + len(name), "f8E4M3FN", FP8_BLOCKS)
        case.give(f"{name}:scale", 0.05 * np.abs(normal(3, 2, 2)), "f32")
    case.values["op.out"] = Value((rows, dim), "f32")
    return case


def shared_experts(scaled: bool, rows: int = TILED_ROWS, **knobs: int) -> Case:
    """The same with a shared expert; rows of bf16 leave it."""
    case = grouped_experts(scaled, rows, **knobs)
    case.lowering = FP8_MOE_QUANTISED if scaled else FP8_MOE
    case.attributes = {("routed", "hidden_fmt"): "ue8m0", ("hidden", "scale_fmt"): "ue8m0"}
    for name, (high, wide) in {
        "w_gate": (144, 160), "w_up": (144, 160), "w_down": (160, 144),
    }.items():  # fmt: skip
        case.give(name, normal(high, wide) + len(name), "f8E4M3FN", FP8_BLOCKS)
        case.give(f"{name}:scale", 0.05 * np.abs(normal(2, 2)), "f32")
    case.values |= dict.fromkeys(("gated", "upped", "act"), Value((rows, 144), "bf16"))
    case.values |= dict.fromkeys(("routed", "shared"), Value((rows, 160), "f32"))
    case.values["hidden"] = Value((rows, 144), "f8E4M3FN", scale=FP8_ROW_BLOCKS)
    case.values["out"] = Value((rows, 160), "bf16")
    case.outputs = ("out",)
    return case


def expert_cases() -> dict[str, Case]:
    """Every kernel of theirs that counts rows."""
    return {
        "route": route(),
        "route rows": route_rows(ROWS, REAL, 16, 300),
        "route rows of many experts": route_rows(TILED_ROWS, TILED_REAL, 128, 520),
        "experts": experts(),
        "fp8 experts": grouped_experts(False, block_rows=16),
        "fp8 experts of scaled rows": grouped_experts(True, block_rows=64),
        "fp8 experts of few scaled rows": grouped_experts(True, OWN_ROWS, block_rows=16),
        "fp8 moe": shared_experts(False, block_rows=16),
        "fp8 moe of few rows": shared_experts(False, OWN_ROWS, block_rows=16),
        "fp8 moe of scaled rows": shared_experts(True, block_rows=64),
        "fp8 moe of scaled rows in tiles": shared_experts(True, block_rows=16),
        "fp8 moe of few scaled rows": shared_experts(True, OWN_ROWS, block_rows=16),
    }
