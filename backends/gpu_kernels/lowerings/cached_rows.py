"""The launch behind attention's projections of a block's input: it makes all of them until they are
cached, or ready for the queries' projection. Chooses nothing, and knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.fp8_joined import JOINED, joined_weights
from lostwax.backends.gpu_kernels.lowerings.fp8_linear import MAP_BORDER, fp8_units
from lostwax.backends.gpu_kernels.lowerings.fp8_products import Product
from lostwax.backends.gpu_kernels.lowerings.fp8_rows import as_bytes, place_of_rest, places
from lostwax.backends.gpu_kernels.lowerings.hadamard import MAX_WIDTH, rotation
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Argument,
    Carver,
    encoding,
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.rope import table_kernel
from lostwax.backends.lowering import Knobs, Match
from lostwax.backends.predicates import (
    Predicate,
    axis_at_most,
    axis_multiple,
    dtype,
    encoded_for_target,
    encoded_layout,
    fact,
    of_rows,
    plain,
    row_blocks,
)
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.contract.step_kernel import Prepared
from lostwax.ir.region import Node

_KERNEL = "lostwax.backends.gpu_kernels.attention_rows:cached_rows"
_FLOATS = ("f32", "bf16")
_MAX_WIDTH = 4096  # one program holds the query's row in registers, and norms it
_PARTS = 3  # of a row, a program each
_MIN_DOT, _HEADS_ROWS = 16, 64  # the matrix units' smallest side, and that of a warp group's
FEW_ROWS = 256  # beyond, tiles of 64 rows by 16 outputs read too much again
_HEADS_SPLITS = 16
"""Splits of K of the heads' product: at one row 64 programs read 14 KB each of V3.2's."""
_HEADS_STAGES = 4  # a split of V3.2's has four blocks of K
_PLAIN, _SCALED_KEYS = ("f32", "bf16"), ("index_paged", "index_row")
_NOWHERE = dict.fromkeys(
    ("PAGE_TOKENS", "PAGE_BYTES", "VALUES_STRIDE", "SCALES_AT", "SCALES_STRIDE"), 1
)
"""Places in a cache that has none."""


@dataclass(frozen=True, slots=True)
class Formats:
    """Which of the three results are rounded to fp8 with scales, and whether what the indexer's
    heads count (`heads`, a product of bf16) is made, too."""

    heads: bool
    query: bool
    latent: bool
    key: bool

    @property
    def suffix(self) -> str:
        """What says of a lowering which it is for."""
        parts = [n for n in ("heads", "query", "latent", "key") if getattr(self, n)]
        return "".join(f"_{part}" for part in parts)

    @property
    def query_out(self) -> str:
        """What leaves of the query."""
        return "q_quantised" if self.query else "q_normed"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What leaves."""
        return (self.query_out, "latents", "keys", *(("heads",) if self.heads else ()))

    def nodes(self, x: str, x_heads: str) -> dict[str, Node]:
        """The ops with the quantisations that there are, of `x`, and of `x_heads` in bf16."""
        nodes = {
            "q": Node("quant.linear", {"x": x, "weight": "w_q"}),
            "q_normed": Node("core.rms_norm", {"x": "q", "weight": "q_weight"}),
            "kv": Node("quant.linear", {"x": x, "weight": "w_kv"}),
            "latent": Node("core.slice", {"x": "kv"}),
            "latent_normed": Node("core.rms_norm", {"x": "latent", "weight": "latent_weight"}),
            "k_pe": Node("core.slice", {"x": "kv"}),
            "k_pe_turned": Node("core.rope", {"x": "k_pe", "positions": "positions"}),
            "k": Node("quant.linear", {"x": x, "weight": "w_k"}),
            "k_normed": Node("core.layer_norm", {"x": "k", "weight": "k_weight", "bias": "k_bias"}),
            "k_turned": Node("core.rope", {"x": "k_normed", "positions": "positions"}),
        }
        if self.query:
            nodes["q_quantised"] = Node("quant.quantise", {"x": "q_normed"})
        latent, key = "latent_normed", "k_turned"
        if self.latent:
            nodes["latent_quantised"] = Node("quant.quantise", {"x": latent})
            latent = "latent_quantised"
        if self.key:
            nodes["k_rotated"] = Node("dsa.hadamard", {"x": "k_turned"})
            nodes["k_quantised"] = Node("quant.quantise", {"x": "k_rotated"})
            key = "k_quantised"
        for name, rows in (("latents", (latent, "k_pe_turned")), ("keys", (key,))):
            reads = {"cache_in": f"{name}_in", "slots": "slots", "rows": rows}
            nodes[name] = Node("kv.append", reads)
        if self.heads:
            nodes["heads"] = Node("quant.linear", {"x": x_heads, "weight": "w_heads"})
        return nodes

    @property
    def inner(self) -> tuple[str, ...]:
        """Values that are rounded to bf16 on the way."""
        names = ("q", "q_normed", "kv", "latent_normed", "k_pe_turned", "k", "k_normed", "k_turned")
        return (*names, "k_rotated") if self.key else names

    @property
    def quantised(self) -> tuple[str, ...]:
        """Values that are rounded to fp8."""
        flags = (self.query, self.latent, self.key)
        names = ("q_quantised", "latent_quantised", "k_quantised")
        return tuple(name for name, flag in zip(names, flags, strict=True) if flag)


@dataclass(frozen=True, slots=True)
class Heads:
    """How the product of the indexer's heads is cut, and where its splits leave their sums."""

    rows: int
    heads: int
    k: int

    @staticmethod
    def of(match: Match) -> Heads:
        """Of a match whose region has that product."""
        heads, k = match.shape("w_heads")
        return Heads(match.shape("q")[0], heads, k)

    @property
    def block_rows(self) -> int:
        """Rows of a program."""
        return min(_HEADS_ROWS, max(_MIN_DOT, next_power_of_two(self.rows)))

    @property
    def blocks(self) -> int:
        """Of rows and outputs."""
        return -(-self.rows // self.block_rows) * -(-self.heads // _MIN_DOT)

    @property
    def splits(self) -> int:
        """Of K: of as many blocks as a program of the other parts reads, or fewer."""
        return min(_HEADS_SPLITS, -(-self.k // FP8_BLOCK))

    @property
    def grid(self) -> int:
        """Programs of every row of the launch."""
        return -(-self.blocks * self.splits // self.rows)

    def carve(self, carver: Carver) -> View:
        """What splits leave."""
        return carver.take("f32", self.blocks, self.splits, self.block_rows, _MIN_DOT)


def carve_heads(match: Match, carver: Carver, formats: Formats) -> View | None:
    """Where splits of the heads' product leave their sums; None where there is none."""
    return Heads.of(match).carve(carver) if formats.heads else None


def zeroed_bytes(match: Match, formats: Formats) -> int:
    """Counters of the splits that have come."""
    return 4 * Heads.of(match).blocks if formats.heads else 0


def _heads_arguments(
    match: Match, carver: Carver, formats: Formats, x: View | None
) -> dict[str, View]:
    """What `plain_product` takes; stands for nothing where there is none."""
    partial = carve_heads(match, carver, formats)
    if partial is None:
        nothing = real_rows(match)
        return dict.fromkeys(("x", "heads_weight", "heads_out", "partial", "arrived"), nothing)
    arrived = Carver(match.zeroed).take("i32", Heads.of(match).blocks)
    return {
        "x": x or match.view("x_heads"),
        "heads_weight": match.view("w_heads"),
        "heads_out": match.view("heads"),
        "partial": partial,
        "arrived": arrived,
    }


def _heads_constants(match: Match, formats: Formats) -> dict[str, int]:
    names = ("HEADS", "WIDTH", "HEADS_SPLITS", "HEADS_BLOCK_ROWS", "HEADS_BLOCK")
    if not formats.heads:
        return dict.fromkeys(names, 0)
    heads = Heads.of(match)
    sizes = (heads.heads, heads.k, heads.splits, heads.block_rows, _MIN_DOT)
    return dict(zip(names, sizes, strict=True))


def _cache_constants(match: Match, cache: str, prefix: str, scaled: bool) -> dict[str, int]:
    found = places(match, cache) if scaled else _NOWHERE
    return {f"{prefix}_{name}": value for name, value in found.items()}


def _power_of_two(match: Match, node: str, scaled: bool) -> int:
    return int(scaled and match.attr(node, "scale_fmt") == "ue8m0")


def _cache(match: Match, name: str) -> tuple[View, int]:
    """A cache as a kernel writes it, and elements from token to token where it is plain."""
    view = match.view(name)
    stride = view.strides[1] if len(view.shape) == 3 else 0
    return (as_bytes(view) if view.dtype.startswith("f8") else view), stride


@dataclass(frozen=True, slots=True)
class QueryRows:
    """Where the query's rows go: in bf16, in fp8 (`terms` 1), or as two terms of fp8."""

    out: View
    scales: View
    terms: int

    @staticmethod
    def of(match: Match, formats: Formats) -> QueryRows:
        """As the region gives them."""
        out = match.view(formats.query_out)
        if not formats.query:
            return QueryRows(out, out, 0)
        return QueryRows(as_bytes(out), match.view(f"{formats.query_out}:scale"), 1)


def _constants(match: Match, formats: Formats, product: Product, terms: int) -> dict[str, int]:
    latent, rope = match.parts("latents_in")
    q, (k,) = match.shape("q")[1], match.parts("keys_in")
    found = {
        "Q": q,
        "K": k,
        "LATENT": latent,
        "ROPE": rope,
        "BLOCK": FP8_BLOCK,
        "Q_GROUPS": next_power_of_two(-(-q // FP8_BLOCK)),
        "Q_SCALED": terms,
        "Q_POWER_OF_TWO": _power_of_two(match, "q_quantised", formats.query),
        "INTERLEAVED": int(match.attr("k_pe_turned", "interleaved")),
        "LATENT_GROUPS": next_power_of_two(-(-latent // FP8_BLOCK)),
        "BLOCK_ROPE": next_power_of_two(rope),
        "LATENT_SCALED": int(formats.latent),
        "LATENT_FP8": int(match.dtype("latents_in").startswith("f8")),
        "LATENT_POWER_OF_TWO": _power_of_two(match, "latent_quantised", formats.latent),
        "LATENT_REST_AT": place_of_rest(match, "latents_in")["REST_AT"] if formats.latent else 0,
        "KEY_LEVELS": rotation(k)[1],
        "KEY_OFFSET": int(match.attr("k_turned", "offset")),
        "KEY_DIM": int(match.attr("k_turned", "dim")),
        "KEY_INTERLEAVED": int(match.attr("k_turned", "interleaved")),
        "KEY_BLOCK": min(FP8_BLOCK, k),
        "KEY_SCALED": int(formats.key),
        "KEY_POWER_OF_TWO": _power_of_two(match, "k_quantised", formats.key),
        **_heads_constants(match, formats),
        "SPLITS": product.splits,
        "WIDE_DOT": 0,
        **encoding(match.target),
        "ROUND_FIRST": 0,
    }
    found |= _cache_constants(match, "latents_in", "LATENT", formats.latent)
    return found | _cache_constants(match, "keys_in", "KEY", formats.key)


def cached_launch(
    match: Match,
    planes: View,
    product: Product,
    carver: Carver,
    formats: Formats,
    op: str,
    query: QueryRows | None = None,
    x_heads: View | None = None,
) -> Launch:
    """The launch behind the product; `query` and `x_heads` where they are no values of the region's
    boundary."""
    heads = _heads_arguments(match, carver, formats, x_heads)
    query = query or QueryRows.of(match, formats)
    latents, latent_stride = _cache(match, "latents_in")
    keys, key_stride = _cache(match, "keys_in")
    arguments: dict[str, Argument] = {
        "joined": planes,
        "q_weight": match.view("q_weight"),
        "q_out": query.out,
        "q_scales": query.scales,
        "latent_weight": match.view("latent_weight"),
        "latent_cache": latents,
        "latent_table": match.step("table"),
        "key_weight": match.view("k_weight"),
        "key_bias": match.view("k_bias"),
        "key_cache": keys,
        "key_table": match.step("index_table"),
        "slots": match.view("slots"),
        **heads,
        "real_rows": real_rows(match),
        "num_rows": i32(product.rows),
        "q_stride": i32(query.out.strides[0]),
        "q_scales_stride": i32(query.scales.strides[0]),
        "latent_stride": i32(latent_stride),
        "key_stride": i32(key_stride),
        "x_stride": i32(heads["x"].strides[0]),
        "heads_stride": i32(heads["heads_out"].strides[0]),
    }
    for name, node in (("q", "q_normed"), ("latent", "latent_normed"), ("key", "k_normed")):
        arguments[f"{name}_eps"] = f32(float(match.attr(node, "eps")))
    arguments["key_scale"] = f32(rotation(match.shape("k")[1])[0])
    return triton_launch(
        match,
        _KERNEL,
        arguments,
        _constants(match, formats, product, query.terms),
        grid=(product.rows, _PARTS + (Heads.of(match).grid if formats.heads else 0), 1),
        op=op,
        num_stages=_HEADS_STAGES,
        rows_of=("q_stride", "q_scales_stride", "latent_stride", "key_stride", "x_stride"),
    )


def cached_tables(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
    """The rotary tables of the latents and of the index keys."""
    return (
        table_kernel(match, "k_pe_turned", "table"),
        table_kernel(match, "k_turned", "index_table"),
    )


def _slices(match: Match) -> str | None:
    """The latent lies first in the product, what is turned behind it."""
    latent, rope = match.parts("latents_in")
    for name, first, last in (("latent", 0, latent), ("k_pe", latent, latent + rope)):
        got = tuple(int(match.attr(name, part)) for part in ("axis", "start", "stop"))
        if got != (1, first, last):
            return f"{name} is axis, start and stop {got} of kv, wants {(1, first, last)}"
    turned = int(match.attr("k_pe_turned", "offset")), int(match.attr("k_pe_turned", "dim"))
    return None if turned == (0, rope) else f"rope turns {turned} of k_pe, wants all {rope}"


def _key_width(match: Match) -> str | None:
    width = match.shape("k")[1]
    fits = width & (width - 1) == 0 and width <= MAX_WIDTH
    return None if fits else f"k has {width} columns, wants a power of two up to {MAX_WIDTH}"


def formats_when(formats: Formats, x: str, x_heads: str) -> Predicate:
    """What the product and the launch behind it ask of `x`, of `x_heads` and of the formats."""
    found = fp8_units(x) & joined_weights(*JOINED.concat) & of_rows(x)
    found &= axis_multiple(x, 1, MAP_BORDER) & fact("dtypes", "f64")
    for name in formats.inner:
        found &= dtype(name, "bf16")
    for name in ("q_weight", "latent_weight", "k_weight", "k_bias"):
        found &= dtype(name, *_FLOATS)
    for name in formats.quantised:
        found &= encoded_for_target(name) & row_blocks(name)
    found &= encoded_layout(
        "latents_in", *(("fp8_656",) if formats.latent else (*_PLAIN, "fp8_576"))
    )
    found &= encoded_layout("keys_in", *(_SCALED_KEYS if formats.key else _PLAIN))
    if formats.heads:
        found &= of_rows(x_heads) & axis_at_most(x_heads, 0, FEW_ROWS)
        found &= dtype(x_heads, "bf16") & dtype("w_heads", "bf16") & plain("w_heads")
        found &= plain(x_heads) & dtype("heads", "f32")
    found &= axis_at_most("q", 1, _MAX_WIDTH) & axis_at_most("kv", 1, _MAX_WIDTH)
    return found & Predicate(_slices) & Predicate(_key_width)
