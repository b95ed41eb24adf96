"""Native products with 8-bit weights and activations that no model of `model_formats.py` has, each
beside the reference at its places: int8 with a scale a row, e4m3 blocks beside f32."""

from __future__ import annotations

import pytest
from model_formats import FP8
from native_kernels import build_native, native_driver
from tiny import ODD, PLAIN, Config

from lostwax.backends.cpu.lowerings.native_attention import NATIVE_ATTENTION
from lostwax.backends.cpu.lowerings.native_expanded import NATIVE_EXPANDED
from lostwax.backends.cpu.lowerings.native_products import NATIVE_PRODUCTS
from lostwax.backends.cpu.target import CPU
from lostwax.backends.formats import Formats, UnsupportedFormat
from lostwax.backends.proof.kit import Environment, Variant, certify_all
from lostwax.backends.registry import find_target
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.types import TensorType

BF16 = {"torch_dtype": "bfloat16"}
CASES: dict[str, tuple[Config, dict[str, str], str]] = {
    "int8-f32": (ODD, {"dtype": "f32", "weights": "int8"}, "si8"),
    "int8-bf16": (PLAIN | FP8 | BF16, {"weights": "int8"}, "si8"),
    "fp8-f32": (PLAIN | FP8, {"dtype": "f32", "weights": "stored"}, "f8E4M3FN"),
    "fp8-f32-rounded": (
        PLAIN | FP8,
        {"dtype": "f32", "weights": "stored", "activations": "fp8_fp32"},
        "f8E4M3FN",
    ),
}
"""Config, options of assign-formats, what products' weights are then."""


@pytest.mark.parametrize("name", CASES)
def test_a_product_of_8_bits_gives_what_its_region_means(name: str) -> None:
    config, options, _ = CASES[name]
    captured = capture(parse_config(config), 16)
    module = run(captured.module, (AssignFormatsPass(**options),))
    attends = [low for low in NATIVE_ATTENTION if "attend" in low.name]
    own = (*NATIVE_PRODUCTS, *attends, *NATIVE_EXPANDED)
    found = certify_all(
        module,
        captured.facts,
        own,
        Environment(CPU, native_driver, build_native, "executed", {}),
        variants=[Variant("decode", every=True)],
        seeds=(0,),
    )
    held = {o.candidate.name for o in found if o.certificate}
    assert held == {low.name for low in own}


@pytest.mark.parametrize("name", CASES)
def test_every_product_of_a_layer_has_such_a_weight(name: str) -> None:
    """But the router and the indexer's heads, whose results choose; of what a checkpoint stores as
    fp8 the vocabulary, too, which it has not. The attention's kv_b is as products' weights are."""
    config, options, wanted = CASES[name]
    module = run(capture(parse_config(config), 16).module, (AssignFormatsPass(**options),))
    plain: set[int] = set()
    for op in module.walk():
        weights = (op.weight,) if isinstance(op, LinearOp) else ()
        weights = (op.gate, op.up, op.down) if isinstance(op, ExpertsOp) else weights
        weights = (op.kv_b,) if isinstance(op, AttendOp) else weights
        for weight in weights:
            assert isinstance(weight.type, TensorType)
            if weight.type.dtype_name != wanted:
                plain.add(weight.type.sizes[0].constant or 0)
    of_heads = ("vocab_size",) if wanted != "si8" else ()
    assert plain == {config[k] for k in ("n_routed_experts", "index_n_heads", *of_heads)}


@pytest.mark.parametrize(
    ("dtype", "weights", "wanted"),
    [
        ("bf16", "model", "dequantised"),
        ("bf16", "int8", "stored"),
        ("f32", "stored", "stored"),
        ("f32", "int8", "stored"),
    ],
)
def test_kv_b_is_held_in_8_bits_where_the_host_reads_it_faster(
    dtype: str, weights: str, wanted: str
) -> None:
    assert Formats().assign(dtype, weights, CPU).kv_b == wanted


@pytest.mark.parametrize("name", ["cuda-sm90a", "rocm-gfx950", "ascend-910b"])
def test_a_device_takes_kv_b_plain(name: str) -> None:
    assert Formats().assign("bf16", "model", find_target(name)[1]).kv_b == "dequantised"


def test_only_a_target_with_int8_holds_int8() -> None:
    found = Formats().assign("bf16", "int8", CPU)
    assert (found.weights, found.activations) == ("int8", "model")
    with pytest.raises(UnsupportedFormat, match="multiplies no int8 weights: leave --weights int8"):
        Formats().assign("bf16", "int8", find_target("cuda-sm90a")[1])
    with pytest.raises(UnsupportedFormat, match="leave --activations out"):
        Formats(activations="fp8_fp32").assign("bf16", "int8", CPU)
    ascend = Formats().assign("bf16", "model", find_target("ascend-910b")[1])
    assert (ascend.weights, ascend.activations) == ("int8", "int8")
    assert Formats().assign("f32", "model", find_target("ascend-910b")[1]).weights == "dequantised"
