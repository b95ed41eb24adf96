"""What stands around absorbed MLA: its query into the latent space, its latents out of it, and how
what comes out leaves: as it is, rounded to fp8, or through the output projection.

Knows no attention kernel and no device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.fp8_linear import fp8_units, weight_is_scaled
from lostwax.backends.gpu_kernels.lowerings.fp8_products import (
    KNOBS,
    Product,
    carve_partial,
    cut,
    product_launch,
    zeroed_bytes,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_rows import as_bytes, rounding
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import Terms, fp8_of
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    encoding,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Match
from lostwax.backends.predicates import (
    ALWAYS,
    Predicate,
    axis_at_most,
    dtype,
    encoded_for_target,
    row_blocks,
    weight_blocks,
)
from lostwax.ir.contract.program import HostCall, Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.absorbed"
_ABSORB = "lostwax.backends.portable.kernels.absorb"
_WIDE = "lostwax.backends.portable.kernels.wide_products"
_FEW_ROWS = 256
"""So many read each head's weights once or a few times; beyond, the library's products pay."""
_MIN_DOT, _TILE_ROWS = 16, 64  # the matrix units' smallest side, and that of a warp group's
_LATENT_COLUMNS = 128  # of a program, or of a stage
_MAX_STAGES = 4
_OWN, _LIBRARY = 1, 2
_FIRST_RULE = {knob.name: knob.values[0] for knob in KNOBS}

ABSORB_KNOB = Knob("absorb", (0, _OWN, _LIBRARY))
"""Whose products they are; 0: own kernels for few rows of bf16, else the library's."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Widths of a head and of the latent, and rows of a tile."""

    rows: int
    heads: int
    nope: int
    of_head: int
    latent: int

    @staticmethod
    def of(match: Match) -> _Sizes:
        rows, heads, nope = match.shape("q_nope")
        weight_rows, latent = match.shape("kv_b")
        return _Sizes(rows, heads, nope, weight_rows // heads, latent)

    @property
    def value(self) -> int:
        """What a head gives."""
        return self.of_head - self.nope

    @property
    def tile_rows(self) -> int:
        """Rows of a program."""
        return min(_TILE_ROWS, _block_of(self.rows))

    @property
    def tiles(self) -> int:
        """Of rows."""
        return -(-self.rows // self.tile_rows)


def _block_of(width: int) -> int:
    return max(_MIN_DOT, next_power_of_two(width))


def is_own(match: Match, knobs: Knobs) -> bool:
    """Whether both products are kernels of ours."""
    choice = knobs.get(ABSORB_KNOB.name, _OWN)
    few = match.shape("q_nope")[0] <= _FEW_ROWS
    return match.dtype("q_nope") == "bf16" and (choice == _OWN or (choice == 0 and few))


def is_wide(match: Match) -> bool:
    """Whether the library takes the query into the latent space without f32 copies of both."""
    return match.target.wide_products and match.dtype("q_nope") != "f32"


def absorb_launch(match: Match, knobs: Knobs, query: View, op: str) -> Launch:
    """The query q_nope W_k into `query` [heads, rows, latent] f32."""
    q_nope, kv_b = match.view("q_nope"), match.view("kv_b")
    if not is_own(match, knobs):
        home = _WIDE if is_wide(match) else _ABSORB
        args = (q_nope, kv_b, query)
        return HostCall(function=f"{home}:absorb_query", args=args, capturable=True, op=op)
    sizes = _Sizes.of(match)
    block = min(_LATENT_COLUMNS, _block_of(sizes.latent))
    return triton_launch(
        match,
        f"{_KERNELS}:absorb_tiles",
        {
            "q_nope": q_nope,
            "kv_b": kv_b,
            "out": query,
            "real_rows": real_rows(match),
            "num_rows": i32(sizes.rows),
            "q_row_stride": i32(q_nope.strides[0]),
            "q_head_stride": i32(q_nope.strides[1]),
        },
        {
            "NOPE": sizes.nope,
            "OF_HEAD": sizes.of_head,
            "LATENT": sizes.latent,
            "BLOCK_ROWS": sizes.tile_rows,
            "BLOCK_NOPE": _block_of(sizes.nope),
            "BLOCK_LATENT": block,
            "WIDE_DOT": 0,
        },
        grid=(sizes.heads, -(-sizes.latent // block), sizes.tiles),
        op=op,
        rows_of=("q_row_stride", "q_head_stride"),
    )


@dataclass(frozen=True, slots=True)
class _Rounded:
    """Where a head's values go, in which form: bf16, fp8 (1) or two terms of fp8 (2)."""

    out: View
    scale: View
    scale_row: int
    scale_head: int
    terms: int
    constants: Mapping[str, int]


def _expand_launch(match: Match, latent: View, to: _Rounded, op: str) -> Launch:
    sizes = _Sizes.of(match)
    block, value = min(_LATENT_COLUMNS, _block_of(sizes.latent)), _block_of(sizes.value)
    stage_bytes = 2 * block * (value + sizes.tile_rows)
    stages = match.target.shared_memory_bytes // stage_bytes - 1
    return triton_launch(
        match,
        f"{_KERNELS}:expand_tiles",
        {
            "latent": latent,
            "kv_b": match.view("kv_b"),
            "out": to.out,
            "scales": to.scale,
            "real_rows": real_rows(match),
            "num_rows": i32(sizes.rows),
            "out_stride": i32(to.out.strides[0]),
            "scale_row": i32(to.scale_row),
            "scale_head": i32(to.scale_head),
        },
        {
            "OF_HEAD": sizes.of_head,
            "VALUE": sizes.value,
            "LATENT": sizes.latent,
            "BLOCK_ROWS": sizes.tile_rows,
            "BLOCK_VALUE": value,
            "BLOCK_LATENT": block,
            "FP8": to.terms,
            **to.constants,
            "WIDE_DOT": 0,
            "ROUND_FIRST": 0,
        },
        grid=(sizes.heads, sizes.tiles, 1),
        op=op,
        num_stages=max(2, min(_MAX_STAGES, stages)),
        rows_of=("out_stride",),
    )


_NEVER = {"POWER_OF_TWO": 0, "FNUZ": 0}


def _leave_plain(
    match: Match, knobs: Knobs, latent: View, carver: Carver, op: str
) -> tuple[Launch, ...]:
    out = match.view("op.out")
    if is_own(match, knobs):
        return (_expand_launch(match, latent, _Rounded(out, out, 0, 0, 0, _NEVER), op),)
    args = (latent, match.view("kv_b"), out)
    return (HostCall(function=f"{_ABSORB}:expand_values", args=args, capturable=True, op=op),)


def _leave_quantised(
    match: Match, knobs: Knobs, latent: View, carver: Carver, op: str
) -> tuple[Launch, ...]:
    out, scale = as_bytes(match.view("quantised")), match.view("quantised:scale")
    constants = rounding(match, "quantised", "quantised")
    to = _Rounded(out, scale, scale.strides[0], scale.strides[1], 1, constants)
    return (_expand_launch(match, latent, to, op),)


def _product(match: Match) -> Product:
    """The output projection of two terms."""
    rows, k = match.shape("op.out")
    n = match.shape("w_o")[0]
    return cut(match, _FIRST_RULE, rows, n, k, 2, apart=False)


def _carve_projected(match: Match, carver: Carver) -> tuple[View, View, View | None]:
    """Places of the terms, of their scales, and of what splits leave."""
    product = _product(match)
    values = carver.take(fp8_of(match), 2 * product.rows, product.k)
    scale = carver.take("f32", product.blocks, product.rows)
    return values, scale, carve_partial(product, carver)


def _leave_projected(
    match: Match, knobs: Knobs, latent: View, carver: Carver, op: str
) -> tuple[Launch, ...]:
    product = _product(match)
    values, scale, partial = _carve_projected(match, carver)
    constants = {"POWER_OF_TWO": 0, **encoding(match.target)}
    to = _Rounded(values, scale, 1, product.rows, 2, constants)
    x = Terms(values, 2, scale, 1, product.rows, ())
    weight = match.view("w_o"), match.view("w_o:scale")
    out = match.view("projected")
    launch = product_launch(match, product, x, weight, out, op, partial=partial)
    return _expand_launch(match, latent, to, op), launch


@dataclass(frozen=True, slots=True)
class End:
    """How attended latents leave: what follows `op`, what that needs, and its launches."""

    suffix: str
    nodes: Mapping[str, Node]
    output: str
    when: Predicate
    leave: Callable[[Match, Knobs, View, Carver, str], tuple[Launch, ...]]
    carve: Callable[[Match, Carver], object] = lambda match, carver: None
    zeroed: Callable[[Match], int] = lambda match: 0
    launches: int = 1

    def region(self, attention: Region) -> Region:
        """The region of `op` with what follows."""
        return Region({**attention.nodes, **self.nodes}, (self.output,))


def _a_block(match: Match) -> str | None:
    """A head's values are one block of a row's scales."""
    value = _Sizes.of(match).value
    return None if value == FP8_BLOCK else f"heads give {value} values, wants {FP8_BLOCK}"


_BLOCKS_OF_FEW = (
    dtype("q_nope", "bf16")
    & dtype("op.out", "bf16")
    & axis_at_most("q_nope", 0, _FEW_ROWS)
    & Predicate(_a_block)
)

PLAIN = End("", {}, "op.out", ALWAYS, _leave_plain)
QUANTISED = End(
    "_quantised",
    {"quantised": Node("quant.quantise", {"x": "op.out"})},
    "quantised",
    _BLOCKS_OF_FEW & row_blocks("quantised") & encoded_for_target("quantised"),
    _leave_quantised,
)
PROJECTED = End(
    "_projected",
    {"projected": Node("quant.linear", {"x": "op.out", "weight": "w_o"})},
    "projected",
    _BLOCKS_OF_FEW
    & fp8_units("op.out")
    & weight_is_scaled("w_o")
    & weight_blocks("w_o")
    & encoded_for_target("w_o")
    & dtype("projected", "f32", "bf16"),
    _leave_projected,
    _carve_projected,
    lambda match: zeroed_bytes(_product(match)),
    launches=2,
)
"""Of bf16: a head's two terms are made where its values are summed."""
ENDS = (PLAIN, QUANTISED, PROJECTED)
