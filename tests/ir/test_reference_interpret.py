"""Functions, regions and a small module run by their references."""

import numpy as np
import pytest
from xdsl.dialects import builtin, func
from xdsl.ir import SSAValue
from xdsl.parser import Parser

from lostwax.ir.dialects import context
from lostwax.ir.reference.cache_bytes import Cache
from lostwax.ir.reference.dtype import round_to, widen
from lostwax.ir.reference.interpret import (
    Bound,
    bind_symbols,
    evaluate_function,
    evaluate_ops,
    evaluate_step,
)
from lostwax.ir.types import TensorType

MODULE = """
func.func @embed(%tokens: !lostwax.tensor<[T], i32> {lostwax.input = "tokens"},
    %w: !lostwax.tensor<[10, 6], bf16> {lostwax.weight = "embed.weight"})
    -> !lostwax.tensor<[T, 6], bf16> {
  %d = "core.embed"(%tokens, %w)
    : (!lostwax.tensor<[T], i32>, !lostwax.tensor<[10, 6], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %d : !lostwax.tensor<[T, 6], bf16>
}
func.func @keep(%x: !lostwax.tensor<[T, 6], bf16>, %slots: !lostwax.tensor<[T], i32>,
    %c: !lostwax.cache<"latent", N, 4, [4, 2], "bf16">,
    %w: !lostwax.tensor<[6], bf16> {lostwax.weight = "norm.weight"})
    -> (!lostwax.tensor<[T, 6], bf16>, !lostwax.cache<"latent", N, 4, [4, 2], "bf16">) {
  %s = "core.add"(%x, %x) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T, 6], bf16>)
    -> !lostwax.tensor<[T, 6], f32>
  %n = "core.rms_norm"(%s, %w) <{eps = 1.0e-06 : f64}>
    : (!lostwax.tensor<[T, 6], f32>, !lostwax.tensor<[6], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %h = "core.reshape"(%n)
    : (!lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[T, 2, 3], bf16>
  %b = "core.reshape"(%h)
    : (!lostwax.tensor<[T, 2, 3], bf16>) -> !lostwax.tensor<[T, 6], bf16>
  %l = "core.slice"(%b) <{axis = 1 : i64, start = 0 : i64, stop = 4 : i64}>
    : (!lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[T, 4], bf16>
  %r = "core.slice"(%b) <{axis = 1 : i64, start = 4 : i64, stop = 6 : i64}>
    : (!lostwax.tensor<[T, 6], bf16>) -> !lostwax.tensor<[T, 2], bf16>
  %k = "kv.append"(%c, %l, %r, %slots)
    : (!lostwax.cache<"latent", N, 4, [4, 2], "bf16">, !lostwax.tensor<[T, 4], bf16>,
       !lostwax.tensor<[T, 2], bf16>, !lostwax.tensor<[T], i32>)
    -> !lostwax.cache<"latent", N, 4, [4, 2], "bf16">
  func.return %b, %k
    : !lostwax.tensor<[T, 6], bf16>, !lostwax.cache<"latent", N, 4, [4, 2], "bf16">
}
func.func @step(%tokens: !lostwax.tensor<[T], i32>, %slots: !lostwax.tensor<[T], i32>)
    -> !lostwax.tensor<[T, 6], bf16> {
  %d = core.call @embed(%tokens) layer 0 weights "model."
    : (!lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 6], bf16>
  %e = core.call @keep(%d, %slots) layer 1 weights "model.layers.1."
    : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 6], bf16>
  func.return %e : !lostwax.tensor<[T, 6], bf16>
}
"""


@pytest.fixture
def module() -> builtin.ModuleOp:
    parsed = Parser(context(), MODULE).parse_module()
    parsed.verify()
    return parsed


def test_a_step_runs_with_weights_by_prefix_and_caches_by_layer(module: builtin.ModuleOp):
    rng = np.random.default_rng(0)
    weights = {
        "model.embed.weight": round_to(rng.standard_normal((10, 6)), "bf16"),
        "model.layers.1.norm.weight": round_to(rng.standard_normal(6), "bf16"),
    }
    caches: dict[tuple[int, str], Cache] = {(1, "latent"): round_to(np.zeros((3, 4, 6)), "bf16")}
    inputs = {"tokens": np.array([3, 9], np.int32), "slots": np.array([5, 10], np.int32)}
    (out,) = evaluate_step(module, "step", inputs, lambda n, _: weights[n], caches)
    x = weights["model.embed.weight"][[3, 9]].astype(np.float64)
    s = (2 * x).astype(np.float32).astype(np.float64)
    want = s / np.sqrt((s * s).mean(-1, keepdims=True) + 1e-6)
    want = round_to(want * weights["model.layers.1.norm.weight"].astype(np.float64), "bf16")
    np.testing.assert_array_equal(out, want)
    written = caches[1, "latent"]
    assert isinstance(written, np.ndarray)
    cached = written.reshape(12, 6)
    np.testing.assert_array_equal(cached[[5, 10]], want)
    assert not np.delete(cached, [5, 10], axis=0).any()


def test_results_are_rounded_to_their_types(module: builtin.ModuleOp):
    embed = next(op for op in module.ops if isinstance(op, func.FuncOp))
    table = np.full((10, 6), 1 + 2**-9)
    (out,) = evaluate_function(embed, [np.array([0, -1], np.int32), table])
    assert isinstance(out, np.ndarray)
    np.testing.assert_array_equal(widen(out), [[1.0] * 6, [0.0] * 6])


def test_symbols_are_bound_from_shapes_and_clashes_named():
    kinds = [TensorType.of(["T"], "i32"), TensorType.of(["T", 4], "f32")]
    assert bind_symbols(kinds, [np.zeros(3), np.zeros((3, 4))]) == {"T": 3}
    with pytest.raises(ValueError, match="T is already 3"):
        bind_symbols(kinds, [np.zeros(3), np.zeros((2, 4))])


def test_a_reshape_keeps_the_rows_of_a_sample() -> None:
    """A probe's reference runs some rows of a step, whose type counts all: here 9 of 4 * 8."""
    text = """
func.func @heads(%x: !lostwax.tensor<[4*B, 6], f32>) -> !lostwax.tensor<[4*B, 2, 3], f32> {
  %h = "core.reshape"(%x)
    : (!lostwax.tensor<[4*B, 6], f32>) -> !lostwax.tensor<[4*B, 2, 3], f32>
  func.return %h : !lostwax.tensor<[4*B, 2, 3], f32>
}
"""
    function = next(iter(Parser(context(), text).parse_module().ops))
    assert isinstance(function, func.FuncOp)
    x = np.arange(54, dtype=np.float64).reshape(9, 6)
    values: dict[SSAValue, Bound] = {function.args[0]: x}
    evaluate_ops([function.body.block.ops.first or function], values, {"B": 8})
    (given,) = (v for v in values.values() if v is not x)
    assert isinstance(given, np.ndarray)
    assert given.shape == (9, 2, 3)
    assert np.array_equal(given.reshape(9, 6), x)
