"""Tensors of a safetensors file as numpy arrays over the mapped file. Knows no plan.

safetensors' own reader for numpy knows no fp8. The format: eight bytes of length, a header of JSON
(name, dtype, shape, where the bytes begin and end behind the header), then the bytes.
"""

from __future__ import annotations

import mmap
import os
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lostwax.ir.contract.foreign_file import BadFile, decoded, open_regular
from lostwax.ir.reference.dtype import NUMPY_DTYPES

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {
    "F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "I64": "i64", "I32": "i32",
    "U8": "u8", "I8": "si8", "F8_E4M3": "f8E4M3FN", "F8_E4M3FNUZ": "f8E4M3FNUZ",
    "F8_E8M0": "f8E8M0FNU",
}  # fmt: skip
"""Our names of the format's element types, as far as plans have them."""


class _Entry(msgspec.Struct):
    """What a header says of a tensor."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class MappedTensors:
    """One file, mapped as long as an array of it lives. Raises BadFile for one that is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise BadFile(f"{path} is no safetensors file, or cut short")
            self._entries = decoded(file.read(length), dict[str, msgspec.Raw], path)
            self._start, self._data_bytes = 8 + length, size - 8 - length
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def get_tensor(self, name: str) -> Any:
        """The array, not to be written. Raises BadFile where the file has none of that name, or of
        an element type that no plan reads."""
        if name not in self._entries or name == "__metadata__":
            raise BadFile(f"{self._path} holds no such tensor")
        entry = decoded(bytes(self._entries[name]), _Entry, self._path)
        if entry.dtype not in DTYPES:
            raise BadFile(f"its element type {entry.dtype} is none that weights have")
        dtype = NUMPY_DTYPES[DTYPES[entry.dtype]]
        begin, end = entry.data_offsets
        count = prod(entry.shape)
        fits = 0 <= begin <= end <= self._data_bytes and end - begin == count * dtype.itemsize
        if not fits or any(n < 0 for n in entry.shape):
            raise BadFile(f"{self._path} is cut short or damaged")
        flat = np.frombuffer(self._map, np.uint8, end - begin, self._start + begin)
        if flat.ctypes.data % dtype.itemsize:
            flat = flat.copy()  # the format aligns the header, not each tensor
        return flat.view(dtype).reshape(entry.shape)
