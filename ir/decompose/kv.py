"""The meaning of the `kv` ops in ONNX operators."""

from __future__ import annotations

from lostwax.ir.decompose.body import Body, Value
from lostwax.ir.decompose.cache_bytes import written
from lostwax.ir.dialects import kv
from lostwax.ir.types import CacheType


def append(b: Body, op: kv.AppendOp) -> Value:
    """The cache with row t, its parts side by side, written at slots[t]."""
    kind = op.cache_in.type
    assert isinstance(kind, CacheType)
    parts = [value for name, value in b.inputs.items() if name.startswith("rows_")]
    return written(b, b.value("cache_in"), kind, parts, b.index("slots"))
