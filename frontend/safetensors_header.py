"""Reads the header of a safetensors file: names, dtypes and shapes, never tensor data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, cast

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {
    "F64": ("f64", 8), "F32": ("f32", 4), "F16": ("f16", 2), "BF16": ("bf16", 2),
    "F8_E4M3": ("f8E4M3FN", 1), "I64": ("i64", 8), "I32": ("i32", 4), "U8": ("u8", 1),
}  # fmt: skip
"""safetensors names with ours and the bytes of an element. Others cannot be read here."""


class HeaderError(ValueError):
    """The file is no whole safetensors file; the message names file and tensor."""


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One stored tensor: `dtype` in the words of `ir.contract`."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Every tensor of one file, checked against the file's size."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, num_bytes - 8):
            raise HeaderError(f"{path} is cut short or no safetensors file; download it again")
        text = file.read(length)
    try:
        raw = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise HeaderError(f"{path}: its header is not JSON ({e}); download it again") from e
    if not isinstance(raw, dict):
        raise HeaderError(f"{path}: its header is no JSON object; download it again")
    data_bytes = num_bytes - 8 - length
    entries = cast("dict[str, Any]", raw)
    entries.pop("__metadata__", None)
    headers: dict[str, TensorHeader] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        header, begin, end = _entry(path, name, entry, data_bytes)
        headers[name] = header
        spans.append((begin, end, name))
    spans.sort()
    for (_, before, first), (begin, _, second) in pairwise(spans):
        if begin < before:
            raise HeaderError(
                f"{path}: the data of {first} and {second} overlap; download it again"
            )
    return headers


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(path: Path, name: str, entry: Any, data_bytes: int) -> tuple[TensorHeader, int, int]:
    try:
        dtype_name, shape = str(entry["dtype"]), tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as e:
        raise _malformed(path, name, entry) from e
    numbers = (*shape, begin, end)
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
        raise _malformed(path, name, entry)
    if dtype_name not in DTYPES:
        raise HeaderError(f"{path}: {name} is stored as {dtype_name}; can read {', '.join(DTYPES)}")
    dtype, width = DTYPES[dtype_name]
    if not begin <= end <= data_bytes:
        raise HeaderError(f"{path} is cut short: the data of {name} end outside; download it again")
    if end - begin != prod(shape) * width:
        raise HeaderError(
            f"{path}: {name} {dtype_name} {list(shape)} does not fill its bytes; download it again"
        )
    return TensorHeader(path.name, dtype, shape), begin, end


def _malformed(path: Path, name: str, entry: Any) -> HeaderError:
    return HeaderError(
        f"{path}: the header entry of {name} is malformed ({entry!r}); download it again"
    )
