"""Small inputs of the fp8 products of many rows on Hopper, as plain values. Runs nothing.

Of their 256 rows one tile has its parts of 64 rows whole, one holds a part
with some real rows, and K and the columns end inside a block.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from plain_attention_cases import give_quantised, give_table
from plain_case import Attributes, Case, normal

from lostwax.backends.cuda.lowerings.fp8_experts import MANY_ROWS_EXPERTS
from lostwax.backends.cuda.lowerings.fp8_linear import (
    MANY_ROWS_GATE_UP,
    MANY_ROWS_LINEAR,
    MANY_ROWS_PROJECTIONS,
)
from lostwax.backends.cuda.lowerings.fp8_queries import MANY_ROWS_QUERIES
from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import Value
from lostwax.ir.contract.scale_layout import FP8_BLOCK, FP8_BLOCKS, FP8_ROW_BLOCKS

ROWS, REAL = 256, 170
_K = 304


def _rows_of_x(case: Case, width: int, scaled: bool) -> None:
    case.of_rows = ("x", "x:scale") if scaled else ("x",)
    layout = FP8_ROW_BLOCKS if scaled else None
    case.give("x", normal(ROWS, width), "f8E4M3FN" if scaled else "bf16", layout)
    if scaled:
        case.give("x:scale", np.abs(normal(ROWS, -(-width // FP8_BLOCK))), "f32")


def _case(
    lowering: Lowering, scaled: bool, attributes: Attributes, knobs: dict[str, int], k: int = _K
) -> Case:
    # Clusters of two, unless a case says else: so few rows have single CTAs by the rule.
    case = Case(lowering, ROWS, REAL, attributes, {"cluster": 2} | knobs)
    _rows_of_x(case, k, scaled)
    return case


def linear(scaled: bool, width: int = 300, k: int = _K, out: str = "bf16", **knobs: int) -> Case:
    """Three blocks of columns, so that a cluster of two has one too many."""
    case = replace(_case(MANY_ROWS_LINEAR, scaled, {}, knobs, k), outputs=("op.out",))
    blocks = -(-width // FP8_BLOCK), -(-k // FP8_BLOCK)
    case.give("weight", normal(width, k), "f8E4M3FN", FP8_BLOCKS)
    case.give("weight:scale", np.abs(normal(*blocks)), "f32")
    case.values["op.out"] = Value((ROWS, width), out)
    return case


def gate_up(scaled: bool, **knobs: int) -> Case:
    """Three blocks of gated columns."""
    case = replace(_case(MANY_ROWS_GATE_UP, scaled, {}, knobs), outputs=("act",))
    case.give_joined({"w_gate": 384, "w_up": 384}, _K)
    case.values |= dict.fromkeys(("gate", "up", "act"), Value((ROWS, 384), "bf16"))
    return case


def projections(scaled: bool) -> Case:
    """128 columns with an RMS norm, 128 with a layer norm and 72 as they are."""
    attributes: Attributes = {("q_normed", "eps"): 1e-6, ("k_normed", "eps"): 1e-5}
    case = _case(MANY_ROWS_PROJECTIONS, scaled, attributes, {})
    case.give_joined({"w_q": 128, "w_k": 128, "w_kv": 72}, _K)
    for name in ("q_weight", "k_weight", "k_bias"):
        case.give(name, normal(128) + len(name), "bf16")
    outputs = ("q_normed", "k_normed", "kv")
    case.values |= dict.fromkeys(("q", "k", *outputs), Value((ROWS, 128), "bf16"))
    case.values["kv"] = Value((ROWS, 72), "bf16")
    return replace(case, outputs=outputs)


def experts(
    scaled: bool, fmt: str = "fp32", alone: bool = False, dim: int = 160, **knobs: int
) -> Case:
    """Three experts of 144 rows: one has two tiles, one no pairs; or one has them all."""
    inter = 144
    attributes: Attributes = {("op", "hidden_fmt"): fmt} if scaled else {}
    case = Case(MANY_ROWS_EXPERTS, ROWS, REAL, attributes, knobs, outputs=("op.out",))
    _rows_of_x(case, dim, scaled)
    case.of_rows += ("ids", "weights")
    rng = np.random.default_rng(3)
    chosen = np.where(rng.random((ROWS, 2)) < 0.1, -1, [0, 2])
    chosen[rng.random(ROWS) < 0.5, 1] = -1
    case.give("ids", np.where(alone, [1, -1], chosen), "i32")
    case.give("weights", np.abs(normal(ROWS, 2)), "f32")
    for name, shape in {
        "gate": (3, inter, dim), "up": (3, inter, dim), "down": (3, dim, inter),
    }.items():  # fmt: skip
        case.give(name, normal(*shape) + len(name), "f8E4M3FN", FP8_BLOCKS)
        blocks = 3, -(-shape[1] // FP8_BLOCK), -(-shape[2] // FP8_BLOCK)
        case.give(f"{name}:scale", 0.05 * np.abs(normal(*blocks)), "f32")
    case.values["op.out"] = Value((ROWS, dim), "f32")
    return case


def queries(scaled: bool, quantised: bool, fmt: str = "ue8m0", **knobs: int) -> Case:
    """Two heads of attention's in three tiles, whose last 64 columns turn; two of the indexer's."""
    attributes: Attributes = {
        ("q_turned", "offset"): 128, ("q_turned", "dim"): 64, ("q_turned", "interleaved"): True,
        ("index_turned", "offset"): 16, ("index_turned", "dim"): 64,
        ("index_turned", "interleaved"): False, ("index_quantised", "scale_fmt"): fmt,
    }  # fmt: skip
    case = _case(MANY_ROWS_QUERIES[quantised], scaled, attributes, knobs)
    case.give_joined({"w_q_b": 2 * 192, "w_index": 2 * 128}, _K)
    case.values |= {"q_b": Value((ROWS, 384), "bf16"), "index_flat": Value((ROWS, 256), "bf16")}
    case.values |= dict.fromkeys(("queries", "q_turned"), Value((ROWS, 2, 192), "bf16"))
    turned = ("index", "index_turned", "index_rotated")
    case.values |= dict.fromkeys(turned, Value((ROWS, 2, 128), "bf16"))
    give_quantised(case, "index_quantised", ROWS, 2, 128)
    give_table(case, "table", 64)
    give_table(case, "index_table", 64)
    found = ("index_quantised", "index_quantised:scale") if quantised else ("index_turned",)
    return replace(case, outputs=("q_turned", *found))


def cases() -> dict[str, Case]:
    """Every form of the kernel; the other knobs left at 0 are the rule's."""
    found = {
        "linear of scaled rows": linear(scaled=True),
        "linear of two terms": linear(scaled=False),
        "linear of tiles of 256 rows": linear(scaled=True, tile_rows=256, stages=2),
        "linear of two terms, tiles of 256 rows": linear(scaled=False, tile_rows=256, turns=4),
        "linear into f32": linear(scaled=True, width=139, out="f32"),
        "linear of tiles of 64 rows": linear(scaled=True, tile_rows=64, columns=64),
        "linear of two terms, tiles of 64 rows": linear(
            scaled=False, tile_rows=64, columns=48, cluster=1
        ),
        "linear of tiles of 80 columns": linear(scaled=True, tile_rows=128, columns=80),
        "linear of tiles of 160 columns": linear(scaled=True, tile_rows=128, columns=160),
        "linear of tiles of 192 columns": linear(scaled=False, tile_rows=128, columns=192),
        "linear of 256 rows, 96 columns": linear(scaled=True, tile_rows=256, columns=96),
        "gate and up of narrow tiles": gate_up(scaled=True, tile_rows=64, columns=48),
        "gate and up of tiles of 80 columns": gate_up(
            scaled=False, tile_rows=128, columns=80, cluster=1
        ),
        "gate and up of tiles of 112 columns": gate_up(scaled=True, tile_rows=128, columns=112),
        "linear with tickets": linear(scaled=True, k=912, dynamic=1, stages=2),
        "linear of two terms with tickets": linear(scaled=False, k=912, dynamic=1),
        "linear of single CTAs with tickets": linear(scaled=True, k=912, cluster=1, dynamic=1),
        "experts with tickets": experts(scaled=True, dim=912, dynamic=1),
        "linear by the rule": linear(scaled=True, cluster=0),
        "linear with tickets of seven blocks": linear(
            scaled=True, k=896, width=1100, dynamic=1, stages=6
        ),
        "experts by the rule": experts(scaled=True, cluster=0),
        "linear of single CTAs": linear(scaled=True, cluster=1, stages=3),
        "linear of odd columns": linear(scaled=True, width=139, cluster=1),
        "gate and up of scaled rows": gate_up(scaled=True),
        "gate and up of two terms": gate_up(scaled=False, cluster=1),
        "projections of scaled rows": projections(scaled=True),
        "queries of scaled rows": queries(scaled=True, quantised=False),
        "queries of two terms": queries(scaled=False, quantised=False, tile_rows=64),
        "queries, quantised": queries(scaled=True, quantised=True),
        "queries of 256 rows, quantised by f32": queries(
            scaled=True, quantised=True, fmt="fp32", tile_rows=256, cluster=1
        ),
        "experts of scaled rows": experts(scaled=True),
        "experts with scales of two's powers": experts(scaled=True, fmt="ue8m0", cluster=1),
        "experts of two terms": experts(scaled=False),
        "experts, one takes all": experts(scaled=True, alone=True),
    }
    short = linear(scaled=True, tile_rows=256)
    return found | {
        "linear of 60 rows": replace(short, real=60),
        "experts of 3 rows": replace(experts(scaled=False), real=3),
    }
