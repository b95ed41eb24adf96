"""A whole step as an ONNX model beside the fp64 references, in every format that it may have."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import checker
from small import SMALL
from tiny import MTP
from xdsl.ir import Attribute

from lostwax.backends.proof.step_cases import step_case
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.program import Bucket
from lostwax.ir.dialects.core import CallOp
from lostwax.ir.onnx import NotExportable, OnnxModel, export_onnx
from lostwax.ir.onnx_function import ELEMENTS
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass
from lostwax.ir.reference.cache_bytes import Cache, CacheBytes
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array, Scaled, Value, round_to
from lostwax.ir.reference.interpret import evaluate_step
from lostwax.ir.types import CacheType, TensorType

PAGE = 16
BF16 = SMALL | {"torch_dtype": "bfloat16"}
FP8 = BF16 | {
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
}
# name: (config, options of assign-formats); the one called draft drafts
FORMATS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "f32": (SMALL, {"dtype": "f32"}),
    "bf16": (BF16, {}),
    "fp8-656": (FP8, {"kv": "fp8_656", "indexer": "fp8_ue8m0", "activations": "fp8_fp32"}),
    "fp8-576": (
        FP8,
        {"kv": "fp8_576", "indexer": "fp8_fp32", "index_pages": "index_row", "fp8": "f8E4M3FNUZ"},
    ),
    "draft": (MTP | {"vocab_size": 64}, {"dtype": "f32"}),
}
BUCKET = Bucket(tokens=60, reqs=3, pages=4)


def _entry(name: str) -> str:
    return "draft" if name == "draft" else "extend"


def _module(name: str):
    config, options = FORMATS[name]
    entry = _entry(name)
    passes = (
        AssignFormatsPass(**options),
        SpecialisePass(segment=entry),
        CleanUpPass(),
    )
    return run(capture(parse_config(config), PAGE).module, passes, None)


def _weight(name: str, kind: Attribute) -> Value:
    """Seeded by name, so that the order of asking does not matter."""
    assert isinstance(kind, TensorType)
    rng = np.random.default_rng(list(name.encode()))
    shape = kind.at({})
    centre, spread = (1.0, 0.1) if "norm" in name and "bias" not in name else (0.0, 0.2)
    if (scale := kind.block_scale) is None:
        return round_to(centre + spread * rng.standard_normal(shape), kind.dtype_name)
    values = round_to(100 * rng.standard_normal(shape), kind.dtype_name)
    *batch, rows, cols = shape
    blocks = (*batch, -(-rows // scale.rows.data), -(-cols // scale.cols.data))
    scales = rng.uniform(1e-3, 2e-3, blocks).astype(np.float32)
    return Scaled(values, scales, scale.rows.data, scale.cols.data)


def _arguments(module: Any, kind: type[Any]) -> dict[str, Any]:
    """Weights by full name, or caches by (layer, plane), of every call."""
    found: dict[Any, Any] = {}
    functions = {f.sym_name.data: f for f in module.ops}
    for call in (op for op in module.walk() if isinstance(op, CallOp)):
        callee = functions[call.callee.root_reference.data]
        for attrs, argument in zip(callee.arg_attrs, callee.body.block.args, strict=True):
            weight = attrs.data.get("lostwax.weight")
            if isinstance(argument.type, CacheType) and kind is CacheType:
                found[call.layer.value.data, argument.type.plane.data] = argument.type
            elif weight is not None and kind is TensorType:
                found[call.prefix.data + weight.data] = argument.type
    return found


def _empty(kind: CacheType, pages: int) -> Cache:
    tokens = kind.page_tokens.data
    if kind.form.element is None:
        return CacheBytes.zeros(kind.layout.data, pages, tokens, kind.row)
    return np.zeros((pages, tokens, sum(kind.row)), NUMPY_DTYPES[kind.form.element])


def _bytes_of(cache: Cache) -> Array:
    data = cache.data if isinstance(cache, CacheBytes) else cache
    return np.ascontiguousarray(data).reshape(data.shape[0], -1).view(np.uint8)


def _session(model: OnnxModel, folder: Path, weights: Mapping[str, Value]) -> Any:
    with (folder / "m.onnx.data").open("wb") as file:
        for placed in model.weights:
            value = weights[placed.name]
            if isinstance(value, Scaled):
                value = value.scales if placed.scale else value.values
            assert value.nbytes == placed.num_bytes
            file.seek(placed.offset)
            file.write(value.tobytes())
    (folder / "m.onnx").write_bytes(model.proto.SerializeToString())
    checker.check_model(str(folder / "m.onnx"), full_check=True)
    return onnxruntime.InferenceSession(str(folder / "m.onnx"))


def _host(array: Array, onnx_type: str) -> Any:
    """An OrtValue; numpy arrays of bf16 are refused."""
    of_numpy: Any = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
    if onnx_type == "tensor(bfloat16)":
        return of_numpy(array.view(np.uint16), ELEMENTS["bf16"])
    if onnx_type == "tensor(uint8)":
        return of_numpy(array.view(np.uint8), ELEMENTS["u8"])
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


@pytest.mark.parametrize("name", FORMATS)
def test_a_step_as_an_onnx_model_equals_the_references(name: str, tmp_path: Path) -> None:
    module = _module(name)
    weights = {n: _weight(n, kind) for n, kind in _arguments(module, TensorType).items()}
    case = step_case(BUCKET, _entry(name), 1, page_tokens=PAGE, vocab_size=64)
    pages = case.env["N"]
    caches: dict[Any, Cache] = {
        key: _empty(kind, pages) for key, kind in _arguments(module, CacheType).items()
    }
    rng = np.random.default_rng(1)
    inputs = {**case.inputs, "hidden": rng.standard_normal((64, 96), dtype=np.float32)}
    model = export_onnx(module, _entry(name), "m.onnx.data", compute="f64")
    session = _session(model, tmp_path, weights)
    feed = {i.name: _host(_given(i.name, inputs, caches), i.type) for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    given = dict(zip(names, session.run_with_ort_values(names, feed), strict=True))

    want = evaluate_step(module, _entry(name), inputs, lambda n, _: weights[n], caches)
    for result, expected in zip(names, want, strict=False):
        assert isinstance(expected, np.ndarray)  # steps return plain tensors
        rows = _hidden(given[result], expected.shape)
        tolerance = 1e-4 if rows.dtype == np.float32 else 4e-2  # a bit of bf16
        np.testing.assert_allclose(rows.astype(float), expected, rtol=0, atol=tolerance)
    for (layer, plane), cache in caches.items():
        found = _raw(given[f"present.{plane}.{layer}"], pages)[1:]  # page 0 may hold anything
        held = _bytes_of(cache)[1:]
        if isinstance(cache, np.ndarray) and cache.dtype == np.float32:
            a, b = found.view(np.float32), held.view(np.float32)
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
        else:
            assert (found != held).mean() < 3e-3, (plane, layer)


def _given(name: str, inputs: Mapping[str, Array], caches: Mapping[Any, Cache]) -> Array:
    if name.count(".") < 2:  # a step input, or a state that is no layer's
        return inputs[name.removeprefix("past.")]
    _, plane, layer = name.split(".")
    cache = caches[int(layer), plane]
    return cache.data if isinstance(cache, CacheBytes) else cache


def _hidden(value: Any, shape: tuple[int, ...]) -> Array:
    raw = _raw(value, shape[0])
    return raw.view(NUMPY_DTYPES["f32" if raw.shape[1] == 4 * shape[1] else "bf16"])


def _raw(value: Any, pages: int) -> Array:
    """[pages, bytes of a page] of an OrtValue; onnxruntime gives no bf16 to numpy."""
    item = {"tensor(float)": 4, "tensor(bfloat16)": 2, "tensor(uint8)": 1}[value.data_type()]
    raw = ctypes.string_at(value.data_ptr(), prod(value.shape()) * item)
    return np.frombuffer(raw, np.uint8).reshape(pages, -1).copy()


def test_a_module_without_the_entry_is_refused() -> None:
    with pytest.raises(NotExportable, match="no step function @decode"):
        export_onnx(_module("f32"), "decode", "m.data")
