"""How products of experts over tiles of pairs are cut, by rule or by knobs. Knows no device."""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.fp8_products import AHEAD, LEAST_SIDE, WEIGHT_FIRST
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import num_terms
from lostwax.backends.gpu_kernels.lowerings.lds import stages, warps
from lostwax.backends.lowering import Knob, Knobs, Match
from lostwax.ir.contract.scale_layout import FP8_BLOCK


@dataclass(frozen=True, slots=True)
class Form:
    """How both products are cut, by the rows of a tile."""

    block_rows: int
    swap: bool
    group: int
    """Tiles that take turns over the same weights."""
    gated_warps: int
    gated_stages: int
    down_n: int
    down_warps: int
    down_stages: int
    ahead: bool = True
    """Whether scales are read ahead, too."""


ROWS = (16, 32, 64, 128)
_FORMS = {
    (1, 16): Form(16, True, 2, 4, 4, 64, 4, 4),
    (1, 32): Form(32, True, 4, 8, 4, 128, 4, 4),
    (1, 64): Form(64, False, 4, 8, 5, 128, 4, 4),
    (1, 128): Form(128, False, 8, 8, 3, 128, 8, 3, ahead=False),
    (2, 16): Form(16, True, 2, 4, 4, 64, 4, 4),
    (2, 32): Form(32, True, 4, 8, 4, 128, 4, 4),
    (2, 64): Form(64, True, 4, 8, 4, 128, 8, 3),
    (2, 128): Form(128, False, 8, 8, 3, 128, 8, 3, ahead=False),
}
"""By terms and the rows of a tile. The forms that a rule chooses are within 5 % of the fastest
setting that `benchmarks/fp8_products.py` timed, as those of `fp8_products.RULES` are."""
_MOST_EACH = {16: 8.0, 32: 24.0, 64: 64.0}
"""Rows of an expert, on average, that tiles of so many rows are for."""


def choose_form(match: Match, knobs: Knobs) -> Form:
    """By rule where knobs are 0: by the rows that an expert has of even choices."""
    rows, top_k = match.shape("ids")
    each = rows * top_k / match.shape("gate")[0]
    own = next((size for size, most in _MOST_EACH.items() if each <= most), max(ROWS))
    target, terms = match.target, num_terms(match, "x")
    form = _FORMS[terms, knobs["block_rows"] or own]
    down_n = knobs["down_n"] or form.down_n
    of_rows = FP8_BLOCK * terms * form.block_rows
    gated, down = of_rows + 2 * FP8_BLOCK**2, of_rows + FP8_BLOCK * down_n
    swap = form.swap if knobs["side"] == 0 else knobs["side"] == WEIGHT_FIRST
    return Form(
        block_rows=form.block_rows,
        swap=swap or form.block_rows < LEAST_SIDE,
        group=knobs["group"] or form.group,
        gated_warps=knobs["gated_warps"] or warps(target, form.gated_warps),
        gated_stages=stages(target, knobs["gated_stages"], form.gated_stages, gated),
        down_n=down_n,
        down_warps=knobs["down_warps"] or warps(target, form.down_warps),
        down_stages=stages(target, knobs["down_stages"], form.down_stages, down),
        ahead=form.ahead if knobs["ahead"] == 0 else knobs["ahead"] == AHEAD,
    )


KNOBS = (
    Knob("block_rows", (0, *ROWS)),
    Knob("side", (0, 1, 2)),
    Knob("group", (0, 1, 2, 4, 8)),
    Knob("gated_warps", (0, 4, 8)),
    Knob("gated_stages", (0, 2, 3, 4, 5)),
    Knob("down_n", (0, 64, 128)),
    Knob("down_warps", (0, 4, 8)),
    Knob("down_stages", (0, 2, 3, 4, 5, 6)),
    Knob("ahead", (0, AHEAD, 2)),
)
"""0 leaves it to the rules."""
