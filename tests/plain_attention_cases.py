"""Small inputs of the kernels behind attention's joined products. Runs nothing."""

from __future__ import annotations

import numpy as np
from plain_case import TILED_REAL, TILED_ROWS, Attributes, Case, normal

from lostwax.backends.gpu_kernels.lowerings.attend import ATTENDS, ATTENDS_ALL
from lostwax.backends.gpu_kernels.lowerings.attention_inputs import ATTENTION_INPUTS
from lostwax.backends.gpu_kernels.lowerings.cached_projections import CACHED_PROJECTIONS
from lostwax.backends.gpu_kernels.lowerings.joined_queries import JOINED_QUERIES
from lostwax.backends.portable.lowerings.prepared import ROPE_CONSTS
from lostwax.backends.proof.plain_match import Value
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.scale_layout import FP8_BLOCK, FP8_BLOCKS, FP8_ROW_BLOCKS

WIDTH = 304  # of the input: three blocks, of which the last is short
BY_NAME = {
    lowering.name: lowering
    for lowering in (
        *ATTENTION_INPUTS,
        *CACHED_PROJECTIONS,
        *JOINED_QUERIES,
        *ATTENDS,
        *ATTENDS_ALL,
    )
}


def rows_of_x(case: Case, scaled: bool) -> None:
    """The input of a product, in bf16 or in fp8 with scales."""
    rows = case.rows
    case.of_rows = ("x", "x:scale") if scaled else ("x",)
    case.give(
        "x",
        normal(rows, WIDTH),
        "f8E4M3FN" if scaled else "bf16",
        FP8_ROW_BLOCKS if scaled else None,
    )
    if scaled:
        case.give("x:scale", np.abs(normal(rows, -(-WIDTH // FP8_BLOCK))), "f32")


def give_table(case: Case, name: str, dim: int) -> None:
    """A rotary table that no kernel wrote behind the real rows."""
    angles = np.random.default_rng(dim).uniform(0, 6, (case.rows, dim // 2))
    pairs = name == "table"  # these lie side by side, the index table's in halves
    axis = -1 if pairs else -2
    shape = (case.rows, dim)
    cosines = np.stack([np.cos(angles)] * 2, axis).reshape(shape)
    sines = np.stack([-np.sin(angles), np.sin(angles)], axis).reshape(shape)
    table = np.stack([cosines, sines])
    table[:, case.real :] = np.nan
    case.give(name, table, "f32")


def give_quantised(case: Case, name: str, *shape: int) -> None:
    """A result in fp8, and its scales."""
    case.values[name] = Value(shape, "f8E4M3FN", scale=FP8_ROW_BLOCKS)
    blocks = -(-shape[-1] // FP8_BLOCK)
    case.values[f"{name}:scale"] = Value((*shape[:-1], blocks), "f32")


def give_cache(case: Case, name: str, layout: str, *parts: int) -> None:
    """A cache of a page a slot."""
    rows, form = case.rows, LAYOUTS[layout]
    if layout in ("fp8_656", "index_paged", "index_row"):
        row_bytes = form.row_bytes(parts)
        shape = (rows, row_bytes) if form.is_paged else (rows, 1, row_bytes)
        case.values[name] = Value(shape, "u8", parts=parts, layout=layout)
        return
    dtype = "f8E4M3FN" if layout == "fp8_576" else layout
    case.values[name] = Value((rows, 1, sum(parts)), dtype, parts=parts, layout=layout)


def cached_projections(
    latents: str,
    keys: str,
    scaled_x: bool,
    query: bool = False,
    heads: bool = False,
    **knobs: int,
) -> Case:
    """128 columns of each product but the latent's 80, caches of all."""
    flags = {
        "heads": heads,
        "query": query,
        "latent": latents == "fp8_656",
        "key": keys.startswith("index"),
    }
    name = "_".join(["smxx_fp8_cached_projections", *(n for n, flag in flags.items() if flag)])
    attributes: Attributes = {
        ("q_normed", "eps"): 1e-6, ("latent_normed", "eps"): 1e-5, ("k_normed", "eps"): 1e-4,
        ("latent", "axis"): 1, ("latent", "start"): 0, ("latent", "stop"): 64,
        ("k_pe", "axis"): 1, ("k_pe", "start"): 64, ("k_pe", "stop"): 80,
        ("k_pe_turned", "offset"): 0, ("k_pe_turned", "dim"): 16,
        ("k_pe_turned", "interleaved"): True,
        ("k_turned", "offset"): 16, ("k_turned", "dim"): 32, ("k_turned", "interleaved"): False,
        ("q_quantised", "scale_fmt"): "ue8m0", ("latent_quantised", "scale_fmt"): "fp32",
        ("k_quantised", "scale_fmt"): "ue8m0",
    }  # fmt: skip
    case = Case(BY_NAME[name], TILED_ROWS, TILED_REAL, attributes, knobs)
    rows_of_x(case, scaled_x)
    case.give_joined({"w_q": 128, "w_k": 128, "w_kv": 80}, WIDTH)
    for weight, width in {"q_weight": 128, "latent_weight": 64, "k_weight": 128}.items():
        case.give(weight, 1 + 0.2 * normal(width), "bf16")
    case.give("k_bias", normal(128, 1)[:, 0], "f32")
    rows = case.rows
    for inner, width in {
        "q": 128, "q_normed": 128, "kv": 80, "latent": 64, "latent_normed": 64, "k_pe": 16,
        "k_pe_turned": 16, "k": 128, "k_normed": 128, "k_turned": 128, "k_rotated": 128,
    }.items():  # fmt: skip
        case.values[inner] = Value((rows, width), "bf16")
    for inner, width in {"q_quantised": 128, "latent_quantised": 64, "k_quantised": 128}.items():
        give_quantised(case, inner, rows, width)
    give_table(case, "table", 16)
    give_table(case, "index_table", 32)
    give_cache(case, "latents_in", latents, 64, 16)
    give_cache(case, "keys_in", keys, 128)
    case.give("slots", np.arange(rows), "i32")
    outputs = ("q_quantised", "q_quantised:scale") if query else ("q_normed",)
    case.outputs = (*outputs, "latents_in", "keys_in")
    if heads:
        case.give("x_heads", normal(rows, 2 * WIDTH)[:, :WIDTH], "bf16")
        case.give("w_heads", normal(20, WIDTH), "bf16")
        case.values["heads"] = Value((rows, 20), "f32")
        case.of_rows += ("x_heads",)
        case.outputs += ("heads",)
    return case


def joined_queries(scaled_x: bool, index_quantised: bool, width: int = WIDTH, **knobs: int) -> Case:
    """Four heads of 48, of which the last 16 turn, and two of 64 for the indexer."""
    name = "smxx_fp8_queries_quantised" if index_quantised else "smxx_fp8_queries"
    attributes: Attributes = {
        ("q_turned", "offset"): 32, ("q_turned", "dim"): 16, ("q_turned", "interleaved"): True,
        ("index_turned", "offset"): 0, ("index_turned", "dim"): 32,
        ("index_turned", "interleaved"): False, ("index_quantised", "scale_fmt"): "ue8m0",
    }  # fmt: skip
    case = Case(BY_NAME[name], TILED_ROWS, TILED_REAL, attributes, knobs)
    rows_of_x(case, scaled_x)
    case.give_joined({"w_q_b": 8 * 48, "w_index": 2 * 64}, width)
    rows = case.rows
    flat, index = Value((rows, 8 * 48), "bf16"), Value((rows, 2 * 64), "bf16")
    case.values |= {"q_b": flat, "index_flat": index}
    case.values |= dict.fromkeys(("queries", "q_turned"), Value((rows, 8, 48), "bf16"))
    turned = ("index", "index_turned", "index_rotated")
    case.values |= dict.fromkeys(turned, Value((rows, 2, 64), "bf16"))
    give_quantised(case, "index_quantised", rows, 2, 64)
    give_table(case, "table", 16)
    give_table(case, "index_table", 32)
    found = ("index_quantised", "index_quantised:scale") if index_quantised else ("index_turned",)
    case.outputs = ("q_turned", *found)
    return case


def attention_inputs(latents: str, keys: str, queries: bool, **knobs: int) -> Case:
    """The residual add, and all of `cached_projections` and `joined_queries`, of bf16."""
    flags = {"heads": queries, "latent": latents == "fp8_656", "key": keys.startswith("index")}
    kind = "queries" if queries else "cached"
    name = "_".join([f"smxx_fp8_attention_{kind}", *(n for n, flag in flags.items() if flag)])
    first = cached_projections(latents, keys, scaled_x=False, heads=queries)
    second = joined_queries(scaled_x=False, index_quantised=flags["key"], width=128)
    about: Attributes = {**first.attributes, ("normed", "eps"): 1e-6}
    case = Case(BY_NAME[name], TILED_ROWS, TILED_REAL, about, knobs)
    for part in (first, second) if queries else (first,):
        case.attributes = {**part.attributes, **case.attributes}
        given = {n: v for n, v in part.data.items() if not n.startswith("x")}
        case.values = {**part.values, **case.values}
        case.data |= {n: v for n, v in given.items() if n not in case.data}
        case.stored |= part.stored
        case.outputs += part.outputs
    del case.values["x"]
    for node in ("k_pe_turned", "q_turned", "k_turned", "index_turned"):
        case.attributes = {(node, name): 0 for name in ROPE_CONSTS} | dict(case.attributes)
    if queries:
        case.outputs = tuple(name for name in case.outputs if name != "q_normed")
    case.outputs += ("residual_out",)
    for name in ("residual", "delta"):
        case.give(name, normal(case.rows, WIDTH + len(name))[:, :WIDTH], "bf16")
    case.give("norm_weight", 1 + 0.2 * normal(WIDTH), "bf16")
    case.values["sum"] = Value((case.rows, WIDTH), "f32")
    dense = Value((case.rows, WIDTH), "bf16")
    case.values |= dict.fromkeys(("residual_out", "normed"), dense)
    case.of_rows = ("residual", "delta")
    return case


def attend(end: str, rows: int = TILED_ROWS, dense: bool = False, **knobs: int) -> Case:
    """Absorbed attention of two heads of 128 values, one row a request over two pages each."""
    all_ = "_all" if dense else ""
    lowering = BY_NAME[f"smxx_mla_attend{all_}_splitkv{end}"]
    attributes: Attributes = {("op", "scale"): 0.2, ("quantised", "scale_fmt"): "ue8m0"}
    knobs = {"block_keys": 16, "query_parts": 2} | knobs
    case = Case(lowering, rows, TILED_REAL, attributes, knobs)
    case.of_rows = ("q_nope", "q_pe", "selection", "positions", "page_table")
    case.give("q_nope", normal(rows, 2, 24), "bf16")
    case.give("q_pe", normal(rows, 2, 8), "bf16")
    case.give("kv_b", normal(2 * (24 + 128), 40), "bf16")
    cache = normal(1 + 2 * rows, 8, 48)
    case.give("cache_in", cache, "bf16")
    case.values["cache_in"] = Value(cache.shape, "bf16", parts=(40, 8))
    positions = np.random.default_rng(rows).integers(0, 16, rows)
    columns = np.arange(16)
    case.give("selection", np.where(columns <= positions[:, None], columns, -1), "i32")
    case.give("positions", positions, "i32")
    case.give("q_starts", np.minimum(np.arange(rows + 1), TILED_REAL), "i32")
    case.give("page_table", 1 + np.arange(2 * rows).reshape(rows, 2), "i32")
    case.values["op.out"] = Value((rows, 256), "bf16")
    case.outputs = ("op.out",)
    if end == "_quantised":
        give_quantised(case, "quantised", rows, 256)
        case.outputs = ("quantised", "quantised:scale")
    if end == "_projected":
        case.give("w_o", normal(70, 256), "f8E4M3FN", FP8_BLOCKS)
        case.give("w_o:scale", 0.1 * np.abs(normal(1, 2)), "f32")
        case.values["projected"] = Value((rows, 70), "bf16")
        case.outputs = ("projected",)
    return case


def attention_cases() -> dict[str, Case]:
    """Every format, and one or more splits of both kinds of input."""
    return {
        "fp8 cached projections of bf16": cached_projections(
            "bf16", "bf16", scaled_x=False, heads=True, splits=2
        ),
        "fp8 cached projections, keys quantised": cached_projections("fp8_576", "index_row", False),
        "fp8 cached projections, quantised": cached_projections(
            "fp8_656", "index_paged", scaled_x=True, query=True, heads=True, splits=3
        ),
        "fp8 queries of bf16": joined_queries(False, False, splits=2),
        "fp8 queries, quantised": joined_queries(True, True, splits=3),
        "fp8 attention's queries": attention_inputs("fp8_656", "index_paged", queries=True),
        "fp8 attention's cached rows": attention_inputs("bf16", "f32", queries=False),
        "fp8 attend of two tiles": attend("", rows=66, splits=1),
        "fp8 attend all, quantised": attend("_quantised", dense=True, splits=2),
        "fp8 attend, projected": attend("_projected", splits=2),
    }
