"""Reads the header of a safetensors file: names, dtypes and shapes, never tensor data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, cast

from lostwax.frontend.config_fields import shown

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_NAME = 256  # characters; the official checkpoint's longest name has 70
MAX_AXES = 8
DTYPES = {
    "F64": ("f64", 64), "F32": ("f32", 32), "F16": ("f16", 16), "BF16": ("bf16", 16),
    "F8_E4M3": ("f8E4M3FN", 8), "F8_E4M3FNUZ": ("f8E4M3FNUZ", 8), "F8_E8M0": ("f8E8M0FNU", 8),
    "F8_E5M2": ("f8E5M2", 8), "F8_E5M2FNUZ": ("f8E5M2FNUZ", 8), "F4": ("f4E2M1FN", 4),
    "I64": ("i64", 64), "I32": ("i32", 32), "I16": ("i16", 16), "I8": ("i8", 8),
    "U64": ("u64", 64), "U32": ("u32", 32), "U16": ("u16", 16), "U8": ("u8", 8), "BOOL": ("i1", 8),
}  # fmt: skip
"""The format's names with ours and the bits of an element. Which of them a weight may have is the
checkpoint's to say: a tensor that nothing reads may have any."""


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
        if not is_plain_name(name):
            raise HeaderError(f"{path}: {shown(name)} is no tensor's name; download it again")
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


def is_plain_name(name: str) -> bool:
    """Whether a name can stand in a message as it is."""
    return 0 < len(name) <= MAX_NAME and name.isprintable()


def _entry(path: Path, name: str, entry: Any, data_bytes: int) -> tuple[TensorHeader, int, int]:
    try:
        dtype_name, shape = str(entry["dtype"]), tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as e:
        raise _malformed(path, name, entry) from e
    numbers = (*shape, begin, end)
    is_count = (isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
    if len(shape) > MAX_AXES or not all(is_count):
        raise _malformed(path, name, entry)
    if dtype_name not in DTYPES:
        raise HeaderError(
            f"{path}: {name} is stored as {shown(dtype_name)}; known are {', '.join(DTYPES)}"
        )
    dtype, bits = DTYPES[dtype_name]
    if not begin <= end <= data_bytes:
        raise HeaderError(f"{path} is cut short: the data of {name} end outside; download it again")
    if (end - begin) * 8 != prod(shape) * bits:
        raise HeaderError(
            f"{path}: {name} {dtype_name} {list(shape)} does not fill its bytes; download it again"
        )
    return TensorHeader(path.name, dtype, shape), begin, end


def _malformed(path: Path, name: str, entry: Any) -> HeaderError:
    return HeaderError(
        f"{path}: the header entry of {name} is malformed ({shown(entry)}); download it again"
    )
