"""Products that share their input as one, over joined fp8 weights, with what follows each.

The weights lie behind one another, so that one launch reads them all and makes the two terms of
the input once; its splits of K are summed by the launch behind it. Knows no device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.fp8_linear import (
    MAP_BORDER,
    fp8_units,
    tiled_flops,
    waiting,
    weight_is_scaled,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_products import (
    KNOBS,
    Product,
    cut,
    product_launch,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import Terms, carve_terms, num_terms, terms_of
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Argument,
    Carver,
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.linear import GATE_UP, GATED
from lostwax.backends.predicates import (
    ALWAYS,
    Predicate,
    axis_at_most,
    axis_multiple,
    dtype,
    encoded_for_target,
    of_rows,
    weight_blocks,
)
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.contract.weights import WeightForm
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.joined_rows"
_BLOCK_COLUMNS = 1024
_MAX_WIDTH = 16384  # one block holds a row in registers
_FLOATS = ("f32", "bf16")

PROJECTED = Region(
    {
        "q": Node("quant.linear", {"x": "x", "weight": "w_q"}),
        "q_normed": Node("core.rms_norm", {"x": "q", "weight": "q_weight"}),
        "kv": Node("quant.linear", {"x": "x", "weight": "w_kv"}),
        "k": Node("quant.linear", {"x": "x", "weight": "w_k"}),
        "k_normed": Node("core.layer_norm", {"x": "k", "weight": "k_weight", "bias": "k_bias"}),
    },
    ("q_normed", "kv", "k_normed"),
)
"""What attention and its indexer project of a block's input. The norms tell the products apart."""
JOINED = WeightForm(name="projections", concat=("w_q", "w_k", "w_kv"))
"""The one that may end inside a scale block comes last."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A region whose weights are joined: their names in order of storage, what follows, and what
    they multiply."""

    name: str
    weights: tuple[str, ...]
    behind: Callable[[Match, View, Product, Carver], Launch]
    carve: Callable[[Match, Carver], object] = lambda match, carver: None
    """What the launch behind the product takes of the workspace beside the planes."""
    x: str = "x"
    is_wide: bool = False
    """Whether the product stays f32 until it is summed up: where what follows rounds it to fp8,
    rounding to bf16 first would move numbers by a step."""

    def product(self, match: Match, knobs: Knobs) -> Product:
        """The joined product as it is cut."""
        rows, k = match.shape(self.x)
        n = sum(match.shape(weight)[0] for weight in self.weights)
        return cut(match, knobs, rows, n, k, num_terms(match, self.x), apart=True)

    def _plane_dtype(self, product: Product) -> str:
        """What splits leave: sums to be added, or the product as it is rounded."""
        return "f32" if product.splits > 1 or self.is_wide else "bf16"

    def _planes(self, product: Product, carver: Carver) -> View:
        shape = product.splits, product.rows, product.n
        return carver.take(self._plane_dtype(product), *shape)

    def launches(
        self, match: Match, product: Product, x: Terms, carver: Carver
    ) -> tuple[Launch, ...]:
        """The product of given terms, and what sums its splits."""
        planes = self._planes(product, carver)
        first = self.weights[0]
        weight = match.view(first), match.view(f"{first}:scale")
        launch = product_launch(match, product, x, weight, planes, self.name)
        return launch, self.behind(match, planes, product, carver)

    def carved(self, match: Match, product: Product, carver: Carver) -> None:
        """Take what `launches` takes of the workspace."""
        self._planes(product, carver)
        self.carve(match, carver)

    def workspace(self, match: Match, knobs: Knobs) -> int:
        """Bytes of the terms and the planes."""
        product, carver = self.product(match, knobs), Carver(None)
        carve_terms(match, self.x, carver)
        self.carved(match, product, carver)
        return carver.num_bytes

    def emit(self, match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        """Terms, the product, and what sums its splits."""
        product, carver = self.product(match, knobs), Carver(match.workspace)
        x = terms_of(match, self.x, carver, self.name)
        return (*x.launches, *self.launches(match, product, x, carver))

    def work(self, match: Match, knobs: Knobs) -> Work:
        """The planes are written and read."""
        base, product = match.work(), self.product(match, knobs)
        size = product.splits * product.rows * product.n * DTYPE_BYTES[self._plane_dtype(product)]
        made = 0 if product.terms == 1 else 4 * product.rows * product.k
        flops = tiled_flops(match, base.flops, self.x, product.rows)
        flops *= product.padded_rows / product.rows * waiting(match, product)
        return Work(base.num_bytes + 2 * size + made, flops, 2 + (made > 0))


def _gated(match: Match, planes: View, product: Product, carver: Carver) -> Launch:
    rows, width = match.shape("act")
    out = match.view("act")
    return triton_launch(
        match,
        f"{_KERNELS}:gated_rows",
        {
            "joined": planes,
            "out": out,
            "real_rows": real_rows(match),
            "num_rows": i32(rows),
            "out_stride": i32(out.strides[0]),
        },
        {"WIDTH": width, "BLOCK": _BLOCK_COLUMNS, "SPLITS": product.splits, "ROUND_FIRST": 0},
        grid=(rows, -(-width // _BLOCK_COLUMNS), 1),
        op="smxx_fp8_gate_up",
        rows_of=("out_stride",),
    )


def _projected(match: Match, planes: View, product: Product, carver: Carver) -> Launch:
    return projected_launch(match, planes, "smxx_fp8_projections")


def projected_launch(match: Match, planes: View, op: str) -> Launch:
    """What follows the joined product of PROJECTED: `planes` [splits, rows, Q + K + KV]."""
    splits, rows, _ = planes.shape
    q, k, kv = (match.shape(name)[1] for name in ("q", "k", "kv"))
    outs = {name: match.view(name) for name in ("q_normed", "k_normed", "kv")}
    arguments: dict[str, Argument] = {"joined": planes}
    arguments |= {name: match.view(name) for name in ("q_weight", "k_weight", "k_bias")}
    arguments |= outs
    arguments |= {"real_rows": real_rows(match), "num_rows": i32(rows)}
    for name, view in zip(("q_stride", "k_stride", "kv_stride"), outs.values(), strict=True):
        arguments[name] = i32(view.strides[0])
    for name, node in (("q_eps", "q_normed"), ("k_eps", "k_normed")):
        arguments[name] = f32(float(match.attr(node, "eps")))
    block = next_power_of_two(max(q, k, kv))
    return triton_launch(
        match,
        f"{_KERNELS}:projected_rows",
        arguments,
        {"Q": q, "K": k, "KV": kv, "BLOCK": block, "SPLITS": splits, "ROUND_FIRST": 0},
        grid=(rows, 3, 1),
        op=op,
        rows_of=("q_stride", "k_stride", "kv_stride"),
    )


def joined_weights(*weights: str) -> Predicate:
    """All block-scaled as the target takes them; each but the last ends with a block."""
    each = ALWAYS
    for weight in weights:
        each &= weight_is_scaled(weight) & weight_blocks(weight) & encoded_for_target(weight)
    for weight in weights[:-1]:
        each &= axis_multiple(weight, 0, FP8_BLOCK)
    return each


_PROJECTIONS = Joined("smxx_fp8_projections", JOINED.concat, _projected)
_GATE_UP = Joined("smxx_fp8_gate_up", GATE_UP.concat, _gated)

PROJECTED_WHEN = (
    fp8_units("x")
    & joined_weights(*JOINED.concat)
    & dtype("q", "bf16")
    & dtype("k", "bf16")
    & dtype("kv", "bf16")
    & dtype("q_normed", *_FLOATS)
    & dtype("k_normed", *_FLOATS)
    & axis_at_most("q", 1, _MAX_WIDTH)
    & axis_at_most("kv", 1, _MAX_WIDTH)
    & axis_multiple("x", 1, MAP_BORDER)
    & of_rows("x")
)
GATED_WHEN = (
    fp8_units("x")
    & joined_weights(*GATE_UP.concat)
    & dtype("gate", "bf16")
    & dtype("up", "bf16")
    & dtype("act", *_FLOATS)
    & axis_multiple("x", 1, MAP_BORDER)
    & of_rows("x")
)

FP8_PROJECTIONS = Lowering(
    name=_PROJECTIONS.name,
    pattern=PROJECTED,
    emit=_PROJECTIONS.emit,
    when=PROJECTED_WHEN,
    knobs=KNOBS,
    weights={"w_q": JOINED},
    workspace=_PROJECTIONS.workspace,
    work=_PROJECTIONS.work,
)

FP8_GATE_UP = Lowering(
    name=_GATE_UP.name,
    pattern=GATED,
    emit=_GATE_UP.emit,
    when=GATED_WHEN,
    knobs=KNOBS,
    weights={"w_gate": GATE_UP},
    workspace=_GATE_UP.workspace,
    work=_GATE_UP.work,
)
