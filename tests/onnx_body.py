"""Runs the ONNX body of one op in plain onnxruntime. Knows no case and no tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from onnx import FunctionProto, GraphProto, helper
from xdsl.irdl import IRDLOperation

from lostwax.ir.decompose.function import decompose, inputs_of, outputs_of
from lostwax.ir.onnx_function import (
    ELEMENTS,
    IR_VERSION,
    OPS,
    call_node,
    function_proto,
    opset_of,
)
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array
from lostwax.ir.types import CacheType

CARRIED = {"bf16": "f32", "f8E4M3FN": "f32", "f8E4M3FNUZ": "f32"}
"""Element types that onnxruntime does not take from numpy, and what carries them exactly."""

Body = FunctionProto | GraphProto
Change = Callable[[Body], None]
"""Changes a body, or a graph within it, in place."""
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def _flat_input(name: str) -> str:
    """What the conformance kit calls an input of a function."""
    if name.endswith("_scale"):
        return f"{_flat_input(name.removesuffix('_scale'))}:scale"
    field, _, index = name.rpartition("_")
    return f"{field}.{index}" if index.isdecimal() else name


def body_runner(op: IRDLOperation, compute: str = "f32", change: Change | None = None) -> Run:
    """A runner for `certify_lowering` over the single region of `op`; `change` spoils the body."""
    function = decompose(op, compute)
    opset = opset_of([function])
    proto = function_proto(function, opset)
    if change is not None:
        change(proto)
    inputs, outputs = inputs_of(op), outputs_of(op)
    call = call_node(op, proto.name, list(inputs), list(outputs))
    graph = helper.make_graph(
        [
            *(helper.make_node("Cast", [_fed(n)], [n], to=ELEMENTS[d]) for n, d in inputs.items()),
            call,
            *(helper.make_node("Cast", [n], [_fed(n)], to=_host(d)) for n, d in outputs.items()),
        ],
        "op",
        [helper.make_tensor_value_info(_fed(n), _host(d), None) for n, d in inputs.items()],
        [helper.make_tensor_value_info(_fed(n), _host(d), None) for n, d in outputs.items()],
    )
    model = helper.make_model(
        graph,
        functions=[proto],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(OPS, 1)],
        ir_version=IR_VERSION,
    )
    caches = _plain_fp8_caches(op)
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def run(flat: Mapping[str, Array]) -> Mapping[str, Array]:
        feed = {_fed(n): _to_host(flat[_flat_input(n)], d) for n, d in inputs.items()}
        results = session.run(None, feed)
        given = {
            _flat_output(n): _from_host(r, d)
            for (n, d), r in zip(outputs.items(), results, strict=True)
        }
        for name, cache in caches.items():
            given[name] = given[name].view(NUMPY_DTYPES[cache])
        return given

    return run


def _plain_fp8_caches(op: IRDLOperation) -> dict[str, str]:
    """Outputs that the kit wants as fp8 and ONNX holds as bytes."""
    found: dict[str, str] = {}
    for (name, _), result in zip(op.get_irdl_definition().results, op.results, strict=True):
        element = result.type.form.element if isinstance(result.type, CacheType) else None
        if element is not None and element.startswith("f8"):
            found[f"op.{name}"] = element
    return found


def _to_host(array: Array, dtype: str) -> Array:
    if dtype == "u8":
        return array.view(np.uint8)
    return array.astype(NUMPY_DTYPES[CARRIED.get(dtype, dtype)])


def _from_host(array: Array, dtype: str) -> Array:
    return array if dtype == "u8" else array.astype(NUMPY_DTYPES[dtype])


def _host(dtype: str) -> int:
    """The element type that crosses between numpy and onnxruntime."""
    return ELEMENTS[CARRIED.get(dtype, dtype)]


def _fed(name: str) -> str:
    return f"{name}.host"


def _flat_output(name: str) -> str:
    """What the conformance kit calls an output of a function."""
    if name.endswith("_out_scale"):
        return f"op.{name.removesuffix('_out_scale')}:scale"
    return f"op.{name.removesuffix('_out')}"
