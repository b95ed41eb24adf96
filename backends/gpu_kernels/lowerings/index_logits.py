"""The indexer's logits over paged keys as one launch. Knows no device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lostwax.backends.gpu_kernels.lowerings.launches import (
    encoding,
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import (
    Predicate,
    dtype,
    encoded_for_target,
    encoded_layout,
    of_rows,
    row_blocks,
)
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.dialects.dsa import IndexLogitsOp
from lostwax.ir.region import Region

_MIN_DOT = 16  # the matrix units' smallest side,
_MIN_DEPTH = 32  # and their smallest depth in fp8
_TILE_ROWS = 8
_MAX_DIM = 256  # a block of keys lies in shared memory whole
_BLOCK_REQS = 64  # requests whose rows are counted at once
_SHARE = {("fp8", True): 0.12, ("fp8", False): 0.25, ("bf16", True): 0.14, ("bf16", False): 0.31}
"""Of the target's rate, for tiles of one row and for others. fp8: 151 to 163 TFLOP/s where 64 and
128 requests of 32k and 128k positions decode, 320 in prompts; bf16: 101 to 112, and 230 to 250 in
prompts of 1,024 and 2,048 rows (`python benchmarks/op.py run FOLDER --ops index,index_bf16 --out
FILE`, one H200, 2026-11-29)."""

KNOBS = (
    Knob("block_keys", (128, 64, 256)),
    Knob("tile_rows", (0, 1, 4, 8, 16, 32)),
    Knob("num_warps", (4, 8)),
    Knob("num_stages", (3, 2, 4)),
)


@dataclass(frozen=True, slots=True)
class RowTile:
    """Rows of the step from `first` on, `count` of them, that one launch scores."""

    first: int
    count: int


def tile_rows(match: Match, knobs: Knobs) -> int:
    """Rows of a request that a program takes: keys are read once for all of them."""
    if knobs["tile_rows"]:
        return knobs["tile_rows"]
    rows, requests = match.shape("q")[0], match.shape("page_table")[0]
    return 1 if rows <= requests else min(_TILE_ROWS, next_power_of_two(rows // requests))


def columns(match: Match) -> int:
    """Positions of the longest request."""
    pages, page_tokens, _ = match.shape("cache_in")
    return pages * page_tokens


def _is_wide(match: Match) -> bool:
    return not match.is_scaled("q") and "f32" in (match.dtype("q"), match.layout("cache_in"))


def logits_launch(
    match: Match, knobs: Knobs, out: View, tile: RowTile, scale: float, op: str
) -> Launch:
    """The launch that writes the logits of a tile of rows to `out` [tile.count, columns] f32."""
    _, heads, dim = match.shape("q")
    requests = match.shape("page_table")[0]
    form = LAYOUTS[match.layout("cache_in")]
    q, weights, cache = match.view("q"), match.view("weights"), match.view("cache_in")
    table = match.view("page_table")
    scaled = match.is_scaled("q")
    q_scale = match.view("q:scale") if scaled else weights
    page_tokens = match.shape("cache_in")[1]
    token_stride = dim if form.is_paged else cache.strides[1]
    rows = tile_rows(match, knobs)
    width = columns(match)
    return triton_launch(
        match,
        "lostwax.backends.gpu_kernels.index_logits:index_logits",
        {
            "q": q,
            "q_scale": q_scale,
            "weights": weights,
            "cache": cache,
            "positions": match.view("positions"),
            "q_starts": match.view("q_starts"),
            "page_table": table,
            "out": out,
            "real_rows": real_rows(match),
            "first_row": i32(tile.first),
            "rows": i32(tile.count),
            "reqs": i32(requests),
            "columns": i32(width),
            "q_row_stride": i32(q.strides[0]),
            "q_head_stride": i32(q.strides[1]),
            "q_scale_stride": i32(q_scale.strides[0]),
            "weights_stride": i32(weights.strides[0]),
            "page_stride": i32(cache.strides[0]),
            "token_stride": i32(token_stride),
            "page_table_stride": i32(table.strides[0]),
            "out_stride": i32(out.strides[0]),
            "scale": f32(scale),
        },
        {
            "HEADS": heads,
            "DIM": dim,
            "PAGE": page_tokens,
            "SCALED": int(scaled),
            "PAGED": int(form.is_paged),
            "SCALES_AT": page_tokens * dim,
            **encoding(match.target),
            "ROWS": rows,
            "BLOCK_HEADS": max(_MIN_DOT, next_power_of_two(heads)),
            "BLOCK_DIM": max(_MIN_DEPTH, next_power_of_two(dim)),
            "BLOCK_KEYS": knobs["block_keys"],
            "BLOCK_REQS": _BLOCK_REQS,
            "WIDE_DOT": int(_is_wide(match)),
        },
        grid=(_most_tiles(tile.count, requests, rows), -(-width // knobs["block_keys"]), 1),
        op=op,
        num_warps=knobs["num_warps"],
        num_stages=knobs["num_stages"],
        rows_of=("q_row_stride", "q_head_stride", "page_stride", "token_stride", "out_stride"),
    )


def _most_tiles(rows: int, requests: int, each: int) -> int:
    """Tiles that rows of so many requests can make: each request's last may be short."""
    return min(rows, rows // each + requests)


def logits_work(match: Match, knobs: Knobs) -> Work:
    """Keys are read by every tile, at worst from memory where they are too many for the cache."""
    rows, requests = match.shape("q")[0], match.shape("page_table")[0]
    tiles = _most_tiles(rows, requests, tile_rows(match, knobs))
    form, dim = LAYOUTS[match.layout("cache_in")], match.shape("q")[2]
    again = max(0, tiles - requests) * columns(match) * form.row_bytes((dim,))
    work = match.work()
    kind = "fp8" if match.is_scaled("q") else match.dtype("q")
    share = 1.0 if _is_wide(match) else _SHARE[kind, tile_rows(match, knobs) == 1]
    return replace(work, num_bytes=work.num_bytes + again, flops=work.flops / share)


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    tile = RowTile(0, match.shape("q")[0])
    scale = float(match.attr("op", "scale"))
    return (logits_launch(match, knobs, match.view("op.out"), tile, scale, "smxx_index_logits"),)


def _dim(match: Match) -> str | None:
    dim = match.shape("q")[2]
    if match.is_scaled("q") and (dim % 4 or dim > FP8_BLOCK):
        return f"keys of {dim} bytes have no single scale at a whole number's place"
    return None if dim <= _MAX_DIM else f"keys have {dim} elements, wants <= {_MAX_DIM}"


INDEX_WHEN = (
    encoded_layout("cache_in", "f32", "bf16", "index_paged", "index_row")
    & dtype("q", "f32", "bf16", "f8E4M3FN", "f8E4M3FNUZ")
    & row_blocks("q")
    & encoded_for_target("q")
    & Predicate(_dim)
    & of_rows("q")
)

INDEX_LOGITS = Lowering(
    name="smxx_index_logits",
    pattern=Region.single(IndexLogitsOp),
    emit=_emit,
    when=INDEX_WHEN,
    knobs=KNOBS,
    row_invariant=True,
    work=logits_work,
)
