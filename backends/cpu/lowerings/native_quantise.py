"""What 8-bit caches and activations ask for beside products: rotation, rounding with scales, rows
of bytes in the cache. Native kernels."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    alike,
    in_a_list,
    native,
    num_rows,
    symbol,
)
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import Emit
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import BlockScale
from lostwax.ir.dialects.dsa import HadamardOp
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.dialects.quant import QuantiseOp
from lostwax.ir.region import Region


def _heads(view: View) -> tuple[int, int]:
    """Strides of rows and heads; what has no heads is one."""
    return view.strides[0], view.strides[1] if len(view.shape) == 3 else 0


def _of_heads(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[1] if len(shape) == 3 else 1, shape[-1]


def _emit_quantise(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    x, out, scales = match.view("x"), match.view("op.out"), match.view("op.out:scale")
    scale = match.scale("op.out")
    assert isinstance(scale, BlockScale)  # the op's verifier
    powers = int(match.attr("op", "scale_fmt") == "ue8m0")
    return (
        native(
            match, "cpu_native_quantise", f"quantise_{match.dtype('x')}_f8", x, out, scales,
            num_rows(match), *_of_heads(match.shape("x")), scale.cols, powers, *_heads(x),
            *_heads(out), *_heads(scales),
        ),
    )  # fmt: skip


def _emit_hadamard(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    x, out = match.view("x"), match.view("op.out")
    rows, heads, width = _of_heads(match.shape("x"))
    return (
        native(
            match, "cpu_native_hadamard", symbol("hadamard", match, "x"), x, out, num_rows(match),
            rows, heads, width, *_heads(x), *_heads(out), scratch_bytes=4 * width,
        ),
    )  # fmt: skip


def _emit_append(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    layout, row = LAYOUTS[match.layout("cache_in")], match.parts("cache_in")
    values, *others = match.views("rows")
    (scales,) = match.views("rows:scale")
    rest = others[0] if others else None
    page_tokens = match.shape("cache_in")[1]
    kernel = f"append_scaled_{rest.dtype if rest else 'bf16'}"
    return (
        native(
            match, "cpu_native_append_scaled", kernel, match.view("cache_in"), match.view("slots"),
            values, scales, rest, num_rows(match), match.bucket.tokens, row[0], layout.scales(row),
            rest.shape[1] if rest else 0, page_tokens, int(layout.is_paged), values.strides[0],
            scales.strides[0], rest.strides[0] if rest else 0,
        ),
    )  # fmt: skip


def _lowering(name: str, region: Region, emit: Emit, when: Predicate) -> Lowering:
    return Lowering(
        name=name,
        pattern=region,
        emit=emit,
        when=ON_HOST & when,
        row_invariant=True,
        work=lambda match, knobs: in_a_list(match.work()),
    )


def _of_rows_or_heads(match: Match) -> str | None:
    axes = len(match.shape("x"))
    return None if axes in (2, 3) else f"x has {axes} axes, wants rows or rows of heads"


NATIVE_QUANTISE = (
    _lowering(
        "cpu_native_quantise",
        Region.single(QuantiseOp),
        _emit_quantise,
        P.dtype("x", "f32", "bf16")
        & P.dtype("op.out", "f8E4M3FN")
        & P.of_rows("x")
        & Predicate(_of_rows_or_heads),
    ),
    _lowering(
        "cpu_native_hadamard",
        Region.single(HadamardOp),
        _emit_hadamard,
        alike("x op.out") & P.of_rows("x") & Predicate(_of_rows_or_heads),
    ),
    _lowering(
        "cpu_native_append_scaled",
        Region.single(AppendOp),
        _emit_append,
        P.layout("cache_in", "fp8_656", "index_paged", "index_row"),
    ),
)
