"""Small inputs of every GPU kernel that counts rows, as plain values. Runs nothing."""

from __future__ import annotations

import numpy as np
from plain_attention_cases import attention_cases
from plain_case import REAL, ROWS, TILED_REAL, TILED_ROWS, Attributes, Case, normal
from plain_expert_cases import expert_cases
from plain_format_cases import format_cases

from lostwax.backends.gpu_kernels.lowerings.add import ADD
from lostwax.backends.gpu_kernels.lowerings.attend import ATTEND, ATTEND_ALL
from lostwax.backends.gpu_kernels.lowerings.fp8_joined import FP8_GATE_UP, FP8_PROJECTIONS
from lostwax.backends.gpu_kernels.lowerings.fp8_linear import FP8_LINEAR
from lostwax.backends.gpu_kernels.lowerings.fp8_mlp import FP8_MLP, FP8_MLP_QUANTISED
from lostwax.backends.gpu_kernels.lowerings.index_logits import INDEX_LOGITS
from lostwax.backends.gpu_kernels.lowerings.linear import LINEAR, SILU_MUL
from lostwax.backends.gpu_kernels.lowerings.norms import (
    ADD_RMS_NORM,
    LAST_RMS_NORM,
    LAYER_NORM,
    RMS_NORM,
)
from lostwax.backends.gpu_kernels.lowerings.plain_linear import PLAIN_LINEAR
from lostwax.backends.gpu_kernels.lowerings.rope import ROPE
from lostwax.backends.gpu_kernels.lowerings.rows import EMBED, GATHER_ROWS
from lostwax.backends.gpu_kernels.lowerings.sample import MASK
from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import Value
from lostwax.ir.contract.scale_layout import (
    FP8_BLOCK,
    FP8_BLOCKS,
    FP8_ROW_BLOCKS,
)


def norm(lowering: Lowering, *weights: str) -> Case:
    """A norm of its own, rows of 70."""
    case = Case(lowering, ROWS, REAL, {("op", "eps"): 1e-6}, of_rows=("x",), outputs=("op.out",))
    case.give("x", normal(ROWS, 70), "bf16")
    for weight in weights:
        case.give(weight, normal(70), "bf16")
    case.values["op.out"] = Value((ROWS, 70), "bf16")
    return case


def add_norm(lowering: Lowering) -> Case:
    """A residual add with its norm."""
    case = Case(lowering, ROWS, REAL, {("normed", "eps"): 1e-6}, of_rows=("residual", "delta"))
    for name in case.of_rows:
        case.give(name, normal(ROWS, 70 + len(name))[:, :70], "bf16")
    case.give("weight", normal(70), "bf16")
    case.values |= {"sum": Value((ROWS, 70), "f32"), "normed": Value((ROWS, 70), "bf16")}
    case.values["residual_out"] = Value((ROWS, 70), "bf16")
    case.outputs = ("normed", "residual_out") if lowering is ADD_RMS_NORM else ("normed",)
    return case


def linear(
    splits: int, scaled: bool, lowering: Lowering = LINEAR, width: int = 300, **knobs: int
) -> Case:
    """70 outputs of 3 blocks of fp8 weights, over three tiles of rows."""
    rows, knobs = TILED_ROWS, knobs | {"splits": splits}
    case = Case(lowering, rows, TILED_REAL, knobs=knobs, outputs=("op.out",))
    case.give("weight", normal(70, width), "f8E4M3FN", FP8_BLOCKS)
    case.give("weight:scale", np.abs(normal(1, 3)), "f32")
    rows_of_x(case, width, scaled)
    case.values["op.out"] = Value((rows, 70), "bf16")
    return case


def plain_linear(dtype: str, **knobs: int) -> Case:
    """70 outputs of 144 columns, over tiles of rows."""
    case = Case(PLAIN_LINEAR, TILED_ROWS, TILED_REAL, knobs=knobs, of_rows=("x",))
    case.outputs = ("op.out",)
    case.give("x", normal(case.rows, 144), dtype)
    case.give("weight", normal(70, 144), dtype)
    case.values["op.out"] = Value((case.rows, 70), "f32")
    return case


def rows_of_x(case: Case, width: int, scaled: bool) -> None:
    """The input of a product, in bf16 or in fp8 with scales."""
    rows, layout = case.rows, FP8_ROW_BLOCKS if scaled else None
    case.of_rows = ("x", "x:scale") if scaled else ("x",)
    case.give("x", normal(rows, width), "f8E4M3FN" if scaled else "bf16", layout)
    if scaled:
        case.give("x:scale", np.abs(normal(rows, -(-width // FP8_BLOCK))), "f32")


def gate_up(scaled: bool, **knobs: int) -> Case:
    """128 gated columns of 3 blocks of fp8 weights, over three tiles of rows."""
    case = Case(FP8_GATE_UP, TILED_ROWS, TILED_REAL, knobs=knobs, outputs=("act",))
    rows_of_x(case, 304, scaled)
    case.give_joined({"w_gate": 128, "w_up": 128}, 304)
    names = ("gate", "up", "act")
    case.values |= dict.fromkeys(names, Value((case.rows, 128), "bf16"))
    return case


def mlp(scaled: bool, **knobs: int) -> Case:
    """The same with 70 outputs of the gated columns."""
    case = gate_up(scaled, **knobs)
    case.lowering = FP8_MLP_QUANTISED if scaled else FP8_MLP
    case.attributes = {("hidden", "scale_fmt"): "ue8m0"}
    case.give("w_down", normal(70, 128), "f8E4M3FN", FP8_BLOCKS)
    case.give("w_down:scale", np.abs(normal(1, 1)), "f32")
    case.values["hidden"] = Value((case.rows, 128), "f8E4M3FN", scale=FP8_ROW_BLOCKS)
    case.values["down"] = Value((case.rows, 70), "bf16")
    case.outputs = ("down",)
    return case


def projections(scaled: bool, **knobs: int) -> Case:
    """128 columns with an RMS norm, 128 with a layer norm and 72 as they are."""
    attributes: Attributes = {("q_normed", "eps"): 1e-6, ("k_normed", "eps"): 1e-5}
    case = Case(FP8_PROJECTIONS, TILED_ROWS, TILED_REAL, attributes, knobs)
    rows_of_x(case, 304, scaled)
    case.give_joined({"w_q": 128, "w_k": 128, "w_kv": 72}, 304)
    for name in ("q_weight", "k_weight", "k_bias"):
        case.give(name, normal(128) + len(name), "bf16")
    case.outputs = ("q_normed", "k_normed", "kv")
    case.values |= dict.fromkeys(("q", "k", *case.outputs), Value((case.rows, 128), "bf16"))
    case.values["kv"] = Value((case.rows, 72), "bf16")
    return case


def rope() -> Case:
    """Two heads, half of each turned."""
    attributes: Attributes = {
        ("op", "offset"): 8, ("op", "dim"): 8, ("op", "interleaved"): True
    }  # fmt: skip
    case = Case(ROPE, ROWS, REAL, attributes, of_rows=("x",), outputs=("op.out",))
    case.give("x", normal(ROWS, 2, 16), "bf16")
    table = normal(2, ROWS, 8)
    table[:, REAL:] = np.nan  # no kernel wrote these
    case.give("table", table, "f32")
    case.values["op.out"] = Value((ROWS, 2, 16), "bf16")
    return case


def silu_mul() -> Case:
    """A gated product."""
    case = Case(SILU_MUL, ROWS, REAL, of_rows=("gate", "up"), outputs=("op.out",))
    case.give("gate", normal(ROWS, 70), "bf16")
    case.give("up", normal(70, ROWS).T, "bf16")
    case.values["op.out"] = Value((ROWS, 70), "bf16")
    return case


def add() -> Case:
    """A sum of unlike rows."""
    case = Case(ADD, ROWS, REAL, of_rows=("a", "b"), outputs=("op.out",))
    case.give("a", normal(ROWS, 70), "f32")
    case.give("b", normal(70, ROWS).T, "bf16")
    case.values["op.out"] = Value((ROWS, 70), "bf16")
    return case


def chosen_rows(lowering: Lowering, table: str, rows: str) -> Case:
    """Rows of a table, one of them of none; behind the real ones another would show."""
    case = Case(lowering, ROWS, REAL, of_rows=(rows,), outputs=("op.out",))
    case.give(table, normal(8, 70), "bf16")
    case.give(rows, np.array([5, -1, 0, 7, 2]), "i32")
    case.values["op.out"] = Value((ROWS, 70), "bf16")
    return case


def mask() -> Case:
    """Rows of three masks, one of them without any; those behind the real ones name some, too."""
    case = Case(MASK, ROWS, REAL, knobs={"block": 64}, of_rows=("logits",), outputs=("op.out",))
    case.give("logits", normal(ROWS, 70), "f32")
    case.give("masks", np.array([[5, -1, 1], [-1, 0, 2], [7, 9, -1]]), "i32")
    case.give("mask_rows", np.array([2, -1, 0, 1, 0]), "i32")
    case.values["op.out"] = Value((ROWS, 70), "f32")
    return case


def attend(dense: bool, splits: int) -> Case:
    """One row a request over two pages each."""
    lowering = ATTEND_ALL if dense else ATTEND
    knobs = {"splits": splits, "block_keys": 16}
    case = Case(lowering, ROWS, REAL, {("op", "scale"): 0.2}, knobs, outputs=("op.out",))
    case.of_rows = ("q_nope", "q_pe", "selection", "positions", "page_table")
    case.absorbs = True
    case.give("q_nope", normal(ROWS, 2, 8), "f32")
    case.give("q_pe", normal(ROWS, 2, 4), "f32")
    case.give("kv_b", normal(2 * 16, 24), "f32")
    cache = normal(1 + 2 * ROWS, 16, 28)
    case.give("cache_in", cache, "f32")
    case.values["cache_in"] = Value(cache.shape, "f32", parts=(24, 4))
    positions = np.array([31, 16, 3, 20, 30])
    columns = np.arange(32)
    case.give("selection", np.where(columns <= positions[:, None], columns, -1), "i32")
    case.give("positions", positions, "i32")
    case.give("q_starts", np.minimum(np.arange(ROWS + 1), REAL), "i32")
    case.give("page_table", 1 + np.arange(2 * ROWS).reshape(ROWS, 2), "i32")
    case.values["op.out"] = Value((ROWS, 16), "f32")
    return case


def index_logits() -> Case:
    """One row a request over two pages each."""
    case = Case(INDEX_LOGITS, ROWS, REAL, {("op", "scale"): 0.3}, outputs=("op.out",))
    case.of_rows = ("q", "weights", "positions", "page_table")
    case.give("q", normal(ROWS, 3, 20), "f32")
    case.give("weights", normal(ROWS, 3), "f32")
    cache = normal(1 + 2 * ROWS, 16, 20)
    case.give("cache_in", cache, "f32")
    case.values["cache_in"] = Value(cache.shape, "f32", parts=(20,))
    case.give("positions", np.array([31, 16, 3, 20, 30]), "i32")
    case.give("q_starts", np.arange(ROWS + 1), "i32")
    case.give("page_table", 1 + np.arange(2 * ROWS).reshape(ROWS, 2), "i32")
    case.values["op.out"] = Value((ROWS, 32), "f32")
    return case


def cases() -> dict[str, Case]:
    """Every kernel that counts rows."""
    return (
        format_cases()
        | expert_cases()
        | attention_cases()
        | {
            "linear of one split": linear(1, scaled=False),
            "linear of two splits": linear(2, scaled=False),
            "linear of scaled rows": linear(2, scaled=True),
            "add_rms_norm": add_norm(ADD_RMS_NORM),
            "last_rms_norm": add_norm(LAST_RMS_NORM),
            "rms_norm": norm(RMS_NORM, "weight"),
            "layer_norm": norm(LAYER_NORM, "weight", "bias"),
            "rope": rope(),
            "silu_mul": silu_mul(),
            "add": add(),
            "embed": chosen_rows(EMBED, "table", "tokens"),
            "gather_rows": chosen_rows(GATHER_ROWS, "x", "rows"),
            "mask": mask(),
            "index_logits": index_logits(),
            "plain linear of bf16": plain_linear("bf16"),
            "plain linear of f32": plain_linear("f32", block_rows=16),
            "fp8 linear of one split": linear(1, False, FP8_LINEAR, 304, block_rows=16),
            "fp8 linear of two splits": linear(2, False, FP8_LINEAR, 304, block_rows=16),
            "fp8 linear of scaled rows": linear(3, True, FP8_LINEAR, 304, block_rows=16),
            "fp8 linear by rows": linear(2, True, FP8_LINEAR, 304, block_rows=64, side=2),
            "fp8 linear, tiles alone ahead": linear(
                2, False, FP8_LINEAR, 304, block_rows=16, ahead=2
            ),
            "fp8 gate and up": gate_up(scaled=False, block_rows=16, splits=2),
            "fp8 gate and up of scaled rows": gate_up(scaled=True, block_rows=16),
            "fp8 mlp": mlp(scaled=False, block_rows=16, splits=2),
            "fp8 mlp of scaled rows": mlp(scaled=True, block_rows=16),
            "fp8 projections": projections(scaled=False, block_rows=16),
            "fp8 projections of scaled rows": projections(scaled=True, block_rows=16, splits=3),
            "attend of one split": attend(dense=False, splits=1),
            "attend of two splits": attend(dense=False, splits=2),
            "attend_all of two splits": attend(dense=True, splits=2),
        }
    )
