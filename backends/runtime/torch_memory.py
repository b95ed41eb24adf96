"""Memory that torch reaches: a GPU's, an NPU's, or the host's for targets that run torch there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch

from lostwax.backends.runtime.driver import Mark
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
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.view import View

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers as wide as an element: what torch can index whatever the element is."""


class TorchDevice(Protocol):
    """What of a driver copies to its memory ask for."""

    @property
    def device(self) -> torch.device:
        """Where buffers lie."""
        ...

    def staging(self, num_bytes: int) -> torch.Tensor:
        """A u8 [num_bytes] buffer of host memory; copies from there to the device do not wait."""
        ...

    def mark(self) -> Mark:
        """A mark behind everything launched so far."""
        ...


def sendable(values: Array, driver: TorchDevice) -> torch.Tensor:
    """A numpy array in memory of its own, from which copies to the device do not wait."""
    array = torch.from_numpy(np.ascontiguousarray(values))
    return driver.staging(array.nbytes).view(array.dtype).view(array.shape).copy_(array)


def as_tensor(place: Place) -> torch.Tensor:
    """The tensor that a place of this memory is."""
    assert isinstance(place, torch.Tensor)
    return place


class TorchMemory:
    """Satisfies `lostwax.backends.runtime.memory.DeviceMemory` for one driver."""

    def __init__(self, driver: TorchDevice) -> None:
        self._driver = driver

    @property
    def is_host(self) -> bool:
        """Whether torch computes on the host."""
        return self._driver.device.type == "cpu"

    def place(self, buffer: Buffer, view: View, offset: int = 0) -> torch.Tensor:
        """A tensor."""
        return tensor_of(buffer, view, offset)

    def mirror(self, buffer: Buffer) -> Buffer:
        """Pinned, or the buffer itself where it lies on the host."""
        if buffer.device.type == "cpu":
            return buffer
        return torch.zeros_like(buffer, device="cpu", pin_memory=True)

    def array(self, buffer: Buffer) -> Array:
        """numpy's view of it."""
        return buffer.numpy()

    def copy(self, to: Buffer, source: Buffer) -> None:
        """Enqueues it."""
        to.copy_(source, non_blocking=True)

    def put(self, buffer: Buffer, values: Array, start: int = 0) -> None:
        """Enqueues it, from staging memory."""
        if values.size:
            sent = sendable(values.reshape(-1).view(np.uint8), self._driver)
            buffer[start : start + values.nbytes].copy_(sent, non_blocking=True)

    def read(self, held: Held) -> Array:
        """Waits for the device."""
        found: Array = held.cpu().numpy()
        return found.copy()

    def set_words(self, buffer: Buffer, places: Array, values: Array) -> None:
        """One copy for both, then one scatter."""
        words = buffer.view(torch.int32)
        packed = np.concatenate((places.view(np.int32), values))
        here = self._here(packed)
        words.index_copy_(0, here[: 2 * len(places)].view(torch.int64), here[2 * len(places) :])

    def add_words(self, buffer: Buffer, places: Array, amount: int) -> None:
        """One scatter."""
        one = torch.tensor(amount, dtype=torch.int32)
        buffer.view(torch.int32).index_put_((torch.from_numpy(places),), one, accumulate=True)

    def table(self, buffer: Buffer, rows: int, *, wide: bool) -> Table:
        """Fewer, wider elements copy faster."""
        held = buffer.view(rows, -1)
        return held.view(torch.int64) if wide else held

    def take_rows(self, table: Table, rows: Index, out: Table) -> None:
        """On the device."""
        torch.index_select(table, 0, rows, out=out)

    def put_rows(self, table: Table, rows: Index, values: Table) -> None:
        """On the device."""
        table.index_copy_(0, rows, values)

    def index(self, rows: Array) -> Index:
        """On the device."""
        return self._here(rows)

    def _here(self, values: Array) -> torch.Tensor:
        """The array in the device's memory; its copy does not wait."""
        return sendable(values, self._driver).to(self._driver.device, non_blocking=True)

    def array_at(self, place: Place) -> Array:
        """numpy's view of it."""
        return as_tensor(place).numpy()

    @property
    def drawing(self) -> Drawing:
        """torch's, on the device."""
        from lostwax.backends.runtime.draw_on_device import DeviceDrawing  # once a device

        return DeviceDrawing()

    def weights(self, num_bytes: int) -> AbstractContextManager[WeightMaker]:
        """torch's."""
        from lostwax.backends.runtime.torch_weights import torch_weights

        return torch_weights(self._driver, num_bytes)

    def samples(self, place: Place, rows: Array, columns: Array) -> Array:
        """Taken on the device, as bits."""
        values = as_tensor(place)
        bits = values.view(BITS[values.dtype.itemsize]).reshape(values.shape[0], -1)
        bits = bits[torch.from_numpy(rows).to(bits.device)]
        if len(columns):
            bits = bits[:, torch.from_numpy(columns).to(bits.device)]
        return bits.cpu().contiguous().numpy()

    def strays(self, place: Place, rows: int) -> tuple[bool, bool]:
        """Looked for on the device."""
        values: Any = as_tensor(place)[:rows]
        if values.dtype.itemsize < 4:
            values = values.float()
        return bool(torch.isnan(values).any()), bool(torch.isinf(values).any())
