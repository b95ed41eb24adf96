"""The host's memory as numpy arrays, for targets that compute there without torch.

bf16 and fp8 numbers are `ml_dtypes`', as in the reference. Knows no program.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from lostwax.backends.runtime.host_weights import HostWeights
from lostwax.backends.runtime.memory import (
    Array,
    Buffer,
    Drawing,
    Held,
    Index,
    Place,
    Table,
    WeightMaker,
)
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.view import View
from lostwax.ir.reference.dtype import NUMPY_DTYPES

if TYPE_CHECKING:
    import torch

ALIGNMENT = 256
"""Of every buffer, in bytes: a vector load never crosses a cache line at its start."""


def zeroed(num_bytes: int) -> Array:
    """u8 [num_bytes], aligned. The system gives its pages at the first touch, so that a cache
    takes no more than was written."""
    raw = np.zeros(num_bytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + num_bytes]


class HostPlace:
    """A view inside a numpy buffer: an address, and the numbers for who asks for them."""

    __slots__ = ("_address", "_buffer", "_shape", "_start", "_tensor", "_view")

    def __init__(self, buffer: Array, view: View, offset: int) -> None:
        """Raises ValueError where the view reaches beyond the buffer, or lies askew in it."""
        width, start = DTYPE_BYTES[view.dtype], offset + view.offset
        shape = view.shape
        if shape and shape[0] == -1:
            shape = (buffer.nbytes // width // view.strides[0], *shape[1:])
        self._buffer, self._view, self._start, self._shape = buffer, view, start, shape
        if start < 0 or start + _span(shape, view.strides, width) > buffer.nbytes:
            raise ValueError(
                f"{view.space} {view.name!r} of {list(shape)} {view.dtype} from byte {start} on"
                f" reaches beyond its buffer of {buffer.nbytes} bytes"
            )
        self._address: int = buffer.__array_interface__["data"][0] + start
        if self._address % width:
            raise ValueError(
                f"{view.space} {view.name!r} begins at byte {start}, where no {view.dtype} does"
            )
        self._tensor: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents; of the tensor, where there is one, which an `out=` may have moved."""
        return self._shape if self._tensor is None else tuple(self._tensor.shape)

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self._address

    def array(self) -> Array:
        """The numbers, over the memory itself."""
        width = DTYPE_BYTES[self._view.dtype]
        strides = [n * width for n in self._view.strides]
        return np.ndarray(
            self._shape, NUMPY_DTYPES[self._view.dtype], self._buffer, self._start, strides
        )

    def tensor(self) -> torch.Tensor:
        """The same for a function of torch's, one tensor whoever asks."""
        if self._tensor is None:
            from lostwax.backends.runtime.tensors import tensor_over  # what imports torch

            self._tensor = tensor_over(self._buffer, self._view, self._start)
        return self._tensor


def _span(shape: tuple[int, ...], strides: tuple[int, ...], width: int) -> int:
    """Bytes from the first element to the end of the last."""
    last = 0
    for extent, stride in zip(shape, strides, strict=True):
        if extent < 1:
            return 0
        last += (extent - 1) * stride
    return (last + 1) * width


class HostMemory:
    """Satisfies `lostwax.backends.runtime.memory.DeviceMemory`. Whatever was launched has run."""

    is_host = True

    def place(self, buffer: Buffer, view: View, offset: int = 0) -> HostPlace:
        """The view inside a buffer."""
        return HostPlace(buffer, view, offset)

    def mirror(self, buffer: Buffer) -> Buffer:
        """The buffer."""
        return buffer

    def array(self, buffer: Buffer) -> Array:
        """The buffer."""
        return buffer

    def copy(self, to: Buffer, source: Buffer) -> None:
        """Copies."""
        to[...] = source

    def put(self, buffer: Buffer, values: Array, start: int = 0) -> None:
        """Copies."""
        buffer[start : start + values.nbytes] = np.ascontiguousarray(values).reshape(-1).view("u1")

    def read(self, held: Held) -> Array:
        """A copy."""
        found: Array = held.array() if isinstance(held, HostPlace) else held
        return found.copy()

    def set_words(self, buffer: Buffer, places: Array, values: Array) -> None:
        """One assignment."""
        buffer.view(np.int32)[places] = values

    def add_words(self, buffer: Buffer, places: Array, amount: int) -> None:
        """One addition a place."""
        np.add.at(buffer.view(np.int32), places, amount)

    def table(self, buffer: Buffer, rows: int, *, wide: bool) -> Table:
        """The buffer's bytes: numpy copies whole rows, of whatever words."""
        return buffer.reshape(rows, -1)

    def index(self, rows: Array) -> Index:
        """The array."""
        return rows

    def take_rows(self, table: Table, rows: Index, out: Table) -> None:
        """Copies."""
        out[...] = table[rows]

    def put_rows(self, table: Table, rows: Index, values: Table) -> None:
        """Copies."""
        table[rows] = values

    def array_at(self, place: Place) -> Array:
        """The place's array."""
        assert isinstance(place, HostPlace)
        return place.array()

    @property
    def drawing(self) -> Drawing:
        """numpy's."""
        from lostwax.backends.runtime.draw_in_host import HostDrawing  # probes run once a device

        return HostDrawing()

    def weights(self, num_bytes: int) -> AbstractContextManager[WeightMaker]:
        """numpy's."""
        return nullcontext(HostWeights())

    def samples(self, place: Place, rows: Array, columns: Array) -> Array:
        """Row by row."""
        values = self.array_at(place)
        taken = values[rows].reshape(len(rows), -1)
        return taken[:, columns] if len(columns) else taken

    def strays(self, place: Place, rows: int) -> tuple[bool, bool]:
        """By numpy."""
        values: Any = self.array_at(place)[:rows]
        if values.dtype.itemsize < 4:
            values = values.astype(np.float32)
        return bool(np.isnan(values).any()), bool(np.isinf(values).any())
