"""How a product with block-scaled fp8 weights is cut into programs, and its launch.

Knows sizes, no op and no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from lostwax.backends.gpu_kernels.lowerings.fp8_terms import Terms
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    Tiles,
    i32,
    maps,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.lds import stages, warps
from lostwax.backends.lowering import Knob, Knobs, Match
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.contract.target import Target

WEIGHT_FIRST = 1
"""Setting of the knob `side` with the weight on the matrix units' first side; 2 is the other."""
LEAST_SIDE = 64  # values on the first side that matrix units take
_GROUP = 8  # tiles of rows that take turns over the same weights
_MEASURED_ON = 132  # compute units of the device that the rules were measured on


@dataclass(frozen=True, slots=True)
class Form:
    """How a product is cut: a program's tile, which side the weight stands on, warps, stages."""

    block_rows: int
    block_n: int
    swap: bool
    num_warps: int
    num_stages: int
    waves: float = 1.0
    """Programs a compute unit that splits of K are to fill at most."""
    least_blocks: int = 14
    """Scale blocks of a split: shorter ones cost more to sum than they save."""
    ahead: bool = False
    """Whether scales are read ahead, too."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The form for so many terms, rows, outputs a compute unit and blocks.

    `apart` asks that the product's splits are left apart, or are summed; None takes both.
    """

    terms: int
    form: Form
    above: int = 0
    """Rows are more than these, and at most `rows`."""
    rows: float = inf
    outputs: float = inf
    blocks: float = inf
    apart: bool | None = None

    def fits(self, terms: int, rows: int, outputs: float, blocks: int, *, apart: bool) -> bool:
        """Whether the form is for such a product."""
        return (
            self.terms == terms
            and self.above < rows <= self.rows
            and outputs <= self.outputs
            and blocks <= self.blocks
            and self.apart in (None, apart)
        )


RULES = (
    Rule(2, Form(16, 64, True, 4, 6, 2.0), above=4, rows=16, apart=False),
    Rule(2, Form(16, 64, True, 4, 4, 2.0, 7), rows=16, outputs=24),
    Rule(2, Form(16, 128, True, 4, 4, 1.75, 8), rows=16, outputs=220),
    Rule(2, Form(16, 64, True, 4, 6), rows=16),
    Rule(2, Form(64, 64, False, 4, 4, 1.75), rows=64, outputs=150),
    Rule(2, Form(64, 128, False, 4, 3), rows=64, outputs=220),
    Rule(2, Form(64, 64, False, 4, 4), rows=64),
    Rule(2, Form(64, 64, False, 4, 4, 2.0, 28), rows=128, apart=False),
    Rule(2, Form(128, 64, False, 8, 4), rows=128, outputs=24),
    Rule(2, Form(64, 128, False, 4, 4), rows=128),
    Rule(2, Form(64, 128, False, 4, 3)),
    Rule(1, Form(16, 64, True, 4, 6, 1.75), above=4, rows=16, apart=False),
    Rule(1, Form(16, 64, True, 4, 6, 2.0), rows=16),
    Rule(1, Form(64, 64, False, 4, 6), rows=64, outputs=150, apart=False),
    Rule(1, Form(64, 64, False, 4, 4), rows=64, apart=False),
    Rule(1, Form(64, 64, False, 4, 4, 1.75), rows=64, outputs=220),
    Rule(1, Form(64, 128, False, 4, 3), rows=64),
    Rule(1, Form(64, 64, False, 4, 4), rows=128, apart=False),
    Rule(1, Form(128, 64, False, 8, 4), rows=128, outputs=24),
    Rule(1, Form(64, 128, False, 4, 4), rows=128),
    Rule(1, Form(64, 128, False, 4, 3), blocks=16),
    Rule(1, Form(128, 128, False, 8, 4)),
)
"""The first that fits counts. Each is within 5 % of the fastest setting of the cells that
`benchmarks/fp8_products.py` timed (benchmarks/results/2026-11-29-h200-fp8-products.json), which
`tests/backends/test_fp8_rules.py` checks. Of joined products, whose splits are left apart, one
tile a cell was timed."""

_AHEAD_ROWS = range(5, 129)  # where reading scales ahead won; it lost at 1, 1024 and 4096
AHEAD = 1
"""Setting of the knob `ahead` that reads scales ahead, too; 2 reads tiles alone ahead."""

KNOBS = (
    Knob("block_rows", (0, 16, 32, 64, 128)),
    Knob("block_n", (0, 64, 128)),
    Knob("side", (0, WEIGHT_FIRST, 2)),
    Knob("splits", (0, 1, 2, 3, 4, 6, 8, 12, 16)),
    Knob("num_warps", (0, 4, 8)),
    Knob("num_stages", (0, 2, 3, 4, 5, 6, 8)),
    Knob("ahead", (0, AHEAD, 2)),
)
"""0 leaves it to the rules."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product x W^T as it is cut, of so many terms of x."""

    rows: int
    n: int
    k: int
    terms: int
    form: Form
    splits: int

    @property
    def split_blocks(self) -> int:
        """Scale blocks of a split."""
        return -(-self.blocks // self.splits)

    @property
    def blocks(self) -> int:
        """Scale blocks of K."""
        return -(-self.k // FP8_BLOCK)

    @property
    def programs(self) -> int:
        """Of one split."""
        return _programs(self.rows, self.n, self.form)

    @property
    def padded_rows(self) -> int:
        """Rows that are multiplied."""
        return -(-self.rows // self.form.block_rows) * self.form.block_rows


def _programs(rows: int, n: int, form: Form) -> int:
    return -(-rows // form.block_rows) * -(-n // form.block_n)


def _form(
    target: Target, rows: int, n: int, blocks: int, terms: int, knobs: Knobs, *, apart: bool
) -> Form:
    """By rule where knobs are 0."""
    outputs = n / _MEASURED_ON
    rule = next(rule.form for rule in RULES if rule.fits(terms, rows, outputs, blocks, apart=apart))
    block_rows = knobs["block_rows"] or rule.block_rows
    block_n = knobs["block_n"] or rule.block_n
    stage_bytes = FP8_BLOCK * (terms * block_rows + block_n)
    swap = rule.swap if knobs["side"] == 0 else knobs["side"] == WEIGHT_FIRST
    return Form(
        block_rows=block_rows,
        block_n=block_n,
        swap=swap or block_rows < LEAST_SIDE,
        num_warps=knobs["num_warps"] or warps(target, rule.num_warps),
        num_stages=stages(target, knobs["num_stages"], rule.num_stages, stage_bytes),
        waves=rule.waves,
        least_blocks=rule.least_blocks,
        ahead=rows in _AHEAD_ROWS if knobs["ahead"] == 0 else knobs["ahead"] == AHEAD,
    )


def cut(
    match: Match, knobs: Knobs, rows: int, n: int, k: int, terms: int, *, apart: bool
) -> Product:
    """The product of these sizes under the knobs; splits by rule are a power of two.

    `apart`: its splits are left apart, for what follows to sum them.
    """
    blocks = -(-k // FP8_BLOCK)
    form = _form(match.target, rows, n, blocks, terms, knobs, apart=apart)
    filling = int(form.waves * match.target.compute_units / _programs(rows, n, form))
    most = max(1, min(filling, blocks // form.least_blocks))
    wanted = knobs["splits"] or 1 << (most.bit_length() - 1)
    each = -(-blocks // min(wanted, blocks))
    return Product(
        rows=rows,
        n=n,
        k=k,
        terms=terms,
        form=form,
        splits=-(-blocks // each),
    )


def carve_partial(product: Product, carver: Carver) -> View | None:
    """Where splits leave their sums for the last of them; None for one split."""
    if product.splits == 1:
        return None
    form = product.form
    shape = (product.programs, product.splits, form.block_rows, form.block_n)
    return carver.take("f32", *shape)


def zeroed_bytes(product: Product) -> int:
    """Counters of the splits that have come."""
    return 4 * product.programs if product.splits > 1 else 0


def product_launch(
    match: Match,
    product: Product,
    x: Terms,
    weight: tuple[View, View],
    out: View,
    op: str,
    *,
    partial: View | None = None,
) -> Launch:
    """The launch; weight with its scales.

    `out` is [rows, n], or [splits, rows, n] where splits are left apart. `partial` is what
    `carve_partial` gave where they are summed.
    """
    form = product.form
    arrived = Carver(match.zeroed).take("i32", product.programs) if partial else real_rows(match)
    values, scale = weight
    return triton_launch(
        match,
        "lostwax.backends.gpu_kernels.scaled_products:linear_tiles",
        {
            "x": x.tiles(form.block_rows),
            "x_scale": x.scale,
            "weight": Tiles(values, (form.block_n, FP8_BLOCK)),
            "weight_scale": scale,
            "out": out,
            "partial": partial or out,
            "arrived": arrived,
            "real_rows": real_rows(match),
            "num_rows": i32(product.rows),
            "N": i32(product.n),
            "K": i32(product.k),
            "split_blocks": i32(product.split_blocks),
            "scale_row": i32(x.scale_row),
            "scale_block": i32(x.scale_block),
            "out_stride": i32(out.strides[-2]),
        },
        {
            "BLOCK_ROWS": form.block_rows,
            "BLOCK_N": form.block_n,
            "BLOCK_SCALE": FP8_BLOCK,
            "GROUP": _GROUP,
            "TERMS": product.terms,
            "SWAP": int(form.swap),
            "SUMMED": product.splits if partial else 0,
            **maps(match.target),
            "AHEAD": form.num_stages if form.ahead else 0,
            "WIDE_DOT": 0,
            "ROUND_FIRST": 0,
        },
        grid=(product.programs, product.splits, 1),
        op=op,
        num_warps=form.num_warps,
        num_stages=form.num_stages,
        rows_of=("K", "out_stride"),
    )
