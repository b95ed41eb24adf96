"""Lowerings that only a GPU runs give what the portable ones give, with torch's products patched.

On the CPU torch has no product with `out_dtype`; here it converts first, and all else is as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lostwax.backends.gpu_kernels.lowerings.wide_products import WIDE_PRODUCTS
from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.kernels import absorb, linear, wide_products
from lostwax.backends.portable.lowerings.linear import LINEAR, TRANSPOSED
from lostwax.backends.proof.plain_match import PlainMatch, Value
from lostwax.backends.registry import find_target
from lostwax.backends.runtime.host_call import bind_host_call
from lostwax.ir.contract.program import Bucket, HostCall, View

LOWERINGS = {x.name: x for x in (*LINEAR, *WIDE_PRODUCTS)}
PRODUCTS = [
    "portable_linear",
    "portable_linear_transposed",
    "torch_linear_wide_out",
    "torch_linear_wide_out_transposed",
]
SHAPES = [(3, 20, 28), (5, 24, 24), (1, 8, 4)]
"""T, K, N. A square weight has the right shape either way round."""


@pytest.fixture(autouse=True)
def _converting_products(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    def converting(real: Callable[..., Any]) -> Callable[..., None]:
        def product(
            x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor, out_dtype: Any = None
        ) -> None:
            assert x.dtype == y.dtype, "as torch wants it"
            assert out_dtype in (None, out.dtype)
            real(x.to(out.dtype), y.to(out.dtype), out=out)

        return product

    mm = torch.mm

    def either(x: torch.Tensor, y: torch.Tensor, **given: Any) -> torch.Tensor | None:
        return converting(mm)(x, y, **given) if given else mm(x, y)

    monkeypatch.setattr(torch, "mm", either)
    monkeypatch.setattr(torch, "bmm", converting(torch.bmm))


def _random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "inner", "outer"), SHAPES)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_the_product_is_that_of_converted_operands(
    rows: int, inner: int, outer: int, is_transposed: bool, dtype: torch.dtype
) -> None:
    x, weight = _random(rows, inner, dtype=dtype), _random(outer, inner, dtype=dtype)
    weight = weight.t().contiguous().t() if is_transposed else weight
    wide, widened, tiled = (torch.full((rows, outer), torch.nan) for _ in range(3))
    wide_products.linear(x, weight, wide)
    linear.widened_linear(x, weight, widened)
    linear.linear(x, None, weight, None, tiled, row_tile=128)
    torch.testing.assert_close(wide, torch.einsum("tk,nk->tn", x.float(), weight.float()))
    torch.testing.assert_close(wide, widened)
    torch.testing.assert_close(wide, tiled)


@pytest.mark.parametrize(("nope", "value"), [(6, 6), (4, 10), (10, 4)])
def test_a_query_meets_its_heads_keys_and_no_values(nope: int, value: int) -> None:
    rows, heads, rank = 3, 5, 7
    q_nope, kv_b = _random(rows, heads, nope), _random(heads * (nope + value), rank)
    wide, narrow = (torch.full((heads, rows, rank), torch.nan) for _ in range(2))
    wide_products.absorb_query(q_nope, kv_b, wide)
    absorb.absorb_query(q_nope, kv_b, narrow)
    torch.testing.assert_close(wide, narrow)
    for head in range(heads):
        first = head * (nope + value)
        keys = kv_b[first : first + nope].float()
        torch.testing.assert_close(wide[head], q_nope[:, head].float() @ keys)


def _match(lowering: Lowering, rows: int, inner: int, outer: int) -> PlainMatch:
    stored = (inner, outer) if lowering.form("weight") == TRANSPOSED else (outer, inner)
    values = {
        "x": Value((rows, inner), "bf16"),
        "weight": Value(stored, "bf16"),
        "op.out": Value((rows, outer), "f32"),
    }
    none: Any = None  # host calls compile no kernel
    target = find_target("cuda-sm90a")[1]
    return PlainMatch(target, Bucket(rows, 1, 1, rows), values, {}, none, Path())


def _call(lowering: Lowering, rows: int, inner: int, outer: int) -> HostCall:
    (call,) = _match(lowering, rows, inner, outer).emit(lowering)
    assert isinstance(call, HostCall)
    assert call.op == lowering.name
    return call


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(("rows", "inner", "outer"), SHAPES)
def test_what_a_lowering_emits_multiplies_by_the_stored_weight(
    name: str, rows: int, inner: int, outer: int
) -> None:
    lowering = LOWERINGS[name]
    x, weight = _random(rows, inner), _random(outer, inner)
    is_transposed = lowering.form("weight") == TRANSPOSED
    out = torch.full((rows, outer), torch.nan)
    buffers = {"x": x, "weight": (weight.t() if is_transposed else weight).contiguous()}
    buffers["op.out"] = out

    def resolve(view: View) -> torch.Tensor:
        return buffers[view.name].as_strided(view.shape, view.strides, view.offset)

    bind_host_call(
        _call(lowering, rows, inner, outer), resolve, ("lostwax.backends.portable.kernels",)
    )()
    torch.testing.assert_close(out, x.float() @ weight.float().t())


@pytest.mark.parametrize("suffix", ["", "_transposed"])
def test_both_products_take_the_same_views(suffix: str) -> None:
    x, x_scale, weight, scale, out = _call(LOWERINGS[f"portable_linear{suffix}"], 3, 20, 28).args
    wide = _call(LOWERINGS[f"torch_linear_wide_out{suffix}"], 3, 20, 28)
    assert (x_scale, scale) == (None, None)
    assert wide.args == (x, weight, out)
    assert weight is not None
    assert (weight.shape, weight.strides) == ((28, 20), (1, 28) if suffix else (20, 1))
