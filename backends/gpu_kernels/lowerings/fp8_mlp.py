"""A gated MLP as two products, of which a launch between makes what the second reads in fp8.

Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lostwax.backends.gpu_kernels.lowerings.fp8_linear import (
    MAP_BORDER,
    fp8_units,
    tiled_flops,
    weight_is_scaled,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_products import (
    KNOBS,
    Product,
    carve_partial,
    cut,
    product_launch,
    zeroed_bytes,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import (
    Terms,
    carve_terms,
    fp8_of,
    num_terms,
    terms_of,
)
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    encoding,
    i32,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.linear import GATE_UP
from lostwax.backends.predicates import (
    Predicate,
    axis_multiple,
    dtype,
    encoded_for_target,
    of_rows,
    weight_blocks,
)
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.region import Node, Region

_BLOCKS = 1  # of 128 columns of a program: few rows give few programs
_WEIGHTS = ("w_gate", "w_up", "w_down")


@dataclass(frozen=True, slots=True)
class _Mlp:
    """One of two patterns: whether `quant.quantise` stands before the second product."""

    name: str
    quantised: bool

    def region(self) -> Region:
        """gate, up, their gated product, and down."""
        nodes = {
            "gate": Node("quant.linear", {"x": "x", "weight": "w_gate"}),
            "up": Node("quant.linear", {"x": "x", "weight": "w_up"}),
            "act": Node("core.silu_mul", {"gate": "gate", "up": "up"}),
        }
        if self.quantised:
            nodes["hidden"] = Node("quant.quantise", {"x": "act"})
        entering = "hidden" if self.quantised else "act"
        nodes["down"] = Node("quant.linear", {"x": entering, "weight": "w_down"})
        return Region(nodes, ("down",))

    def _joined(self, match: Match, knobs: Knobs) -> Product:
        rows, k = match.shape("x")
        n = match.shape("w_gate")[0] + match.shape("w_up")[0]
        return cut(match, knobs, rows, n, k, num_terms(match, "x"), apart=True)

    def _down(self, match: Match, knobs: Knobs) -> Product:
        rows = match.shape("x")[0]
        n, k = match.shape("w_down")
        return cut(match, knobs, rows, n, k, num_terms(match, "x"), apart=False)

    def _planes(self, joined: Product, carver: Carver) -> View:
        """What the first product's splits leave: sums to be added, or bf16 of one split."""
        kind = "f32" if joined.splits > 1 else "bf16"
        return carver.take(kind, joined.splits, joined.rows, joined.n)

    def _hidden(self, fp8: str, down: Product, carver: Carver) -> Terms:
        """Places of what the second product reads."""
        values = carver.take(fp8, down.terms * down.rows, down.k)
        scale = carver.take("f32", down.blocks, down.rows)
        return Terms(values, down.terms, scale, 1, down.rows, ())

    def workspace(self, match: Match, knobs: Knobs) -> int:
        """Bytes of all that goes between the launches."""
        joined, down, carver = self._joined(match, knobs), self._down(match, knobs), Carver(None)
        carve_terms(match, "x", carver)
        self._planes(joined, carver)
        self._hidden(fp8_of(match), down, carver)
        carve_partial(down, carver)
        return carver.num_bytes

    def zeroed(self, match: Match, knobs: Knobs) -> int:
        """Counters of the second product's splits."""
        return zeroed_bytes(self._down(match, knobs))

    def _between(self, match: Match, joined: Product, planes: View, hidden: Terms) -> Launch:
        width = match.shape("act")[1]
        rounded = self.quantised and match.attr("hidden", "scale_fmt") == "ue8m0"
        return triton_launch(
            match,
            "lostwax.backends.gpu_kernels.gated_terms:gated_terms",
            {
                "joined": planes,
                "terms": hidden.values,
                "scale": hidden.scale,
                "real_rows": real_rows(match),
                "num_rows": i32(joined.rows),
                "scale_row": i32(hidden.scale_row),
                "scale_block": i32(hidden.scale_block),
            },
            {
                "WIDTH": width,
                "BLOCK_SCALE": FP8_BLOCK,
                "BLOCKS": _BLOCKS,
                "SPLITS": joined.splits,
                "TERMS": hidden.count,
                "POWER_OF_TWO": int(rounded),
                **encoding(match.target),
                "ROUND_FIRST": 0,
            },
            grid=(joined.rows, -(-width // (FP8_BLOCK * _BLOCKS)), 1),
            op=self.name,
            num_warps=1,
        )

    def emit(self, match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        """Terms of bf16 rows, the first product, what sums and rounds it, the second."""
        joined, down = self._joined(match, knobs), self._down(match, knobs)
        carver = Carver(match.workspace)
        x = terms_of(match, "x", carver, self.name)
        planes, hidden = self._planes(joined, carver), self._hidden(fp8_of(match), down, carver)
        partial = carve_partial(down, carver)
        first = match.view("w_gate"), match.view("w_gate:scale")
        second = match.view("w_down"), match.view("w_down:scale")
        out = match.view("down")
        return (
            *x.launches,
            product_launch(match, joined, x, first, planes, self.name),
            self._between(match, joined, planes, hidden),
            product_launch(match, down, hidden, second, out, self.name, partial=partial),
        )

    def work(self, match: Match, knobs: Knobs) -> Work:
        """What goes between the launches is written and read."""
        base, joined, down = match.work(), self._joined(match, knobs), self._down(match, knobs)
        kind = "f32" if joined.splits > 1 else "bf16"
        between = 2 * joined.splits * joined.rows * joined.n * DTYPE_BYTES[kind]
        between += 2 * down.terms * down.rows * down.k
        between += 8 * down.splits * down.rows * down.n if down.splits > 1 else 0
        makes_terms = joined.terms == 2
        between += 4 * joined.rows * joined.k if makes_terms else 0
        flops = tiled_flops(match, base.flops, "x", joined.rows)
        flops *= joined.padded_rows / joined.rows
        return Work(base.num_bytes + between, flops, 3 + makes_terms)


def _weights() -> Predicate:
    """Block-scaled as the target takes them; the first of the joined ones ends with a block."""
    found = weight_blocks(*_WEIGHTS) & axis_multiple("w_gate", 0, FP8_BLOCK)
    for weight in _WEIGHTS:
        found &= weight_is_scaled(weight) & encoded_for_target(weight)
    return found


_MOST_NUMBERS = 1 << 27
"""Of all weights: a number that leaves follows from each of them, and a golden probe must be able
to draw what its samples follow from."""


def _fits_a_probe() -> Predicate:
    def refusal(match: Match) -> str | None:
        count = sum(prod(match.shape(weight)) for weight in _WEIGHTS)
        if count <= _MOST_NUMBERS:
            return None
        return f"its weights have {count} numbers; at most {_MOST_NUMBERS} fit a golden probe"

    return Predicate(refusal)


def _lowering(mlp: _Mlp) -> Lowering:
    when = (
        fp8_units("x")
        & _weights()
        & _fits_a_probe()
        & dtype("gate", "bf16")
        & dtype("up", "bf16")
        & dtype("act", "bf16")
        & dtype("down", "f32", "bf16")
        & axis_multiple("x", 1, MAP_BORDER)
        & of_rows("x")
    )
    return Lowering(
        name=mlp.name,
        pattern=mlp.region(),
        emit=mlp.emit,
        when=when & fp8_units("hidden") if mlp.quantised else when,
        knobs=KNOBS,
        weights={"w_gate": GATE_UP},
        workspace=mlp.workspace,
        zeroed=mlp.zeroed,
        work=mlp.work,
    )


FP8_MLP = _lowering(_Mlp("smxx_fp8_mlp", quantised=False))
FP8_MLP_QUANTISED = _lowering(_Mlp("smxx_fp8_mlp_quantised", quantised=True))
