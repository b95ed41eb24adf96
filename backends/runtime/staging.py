"""Moves host tensors into device memory through few buffers of a bounded size. Knows no weight."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import torch

from lostwax.backends.runtime.driver import Driver, Mark

STAGING_BYTES = 32 << 20
"""Of each buffer: long enough copies for a bus, short enough to hold some."""


def sendable(values: Any, driver: Driver) -> torch.Tensor:
    """A numpy array in memory of its own, from which copies to the device do not wait."""
    array = torch.from_numpy(np.ascontiguousarray(values))
    return driver.staging(array.nbytes).view(array.dtype).view(array.shape).copy_(array)


class Staging:
    """Copies without waiting: one buffer is filled while the bytes of others travel.

    Several threads may write at once; each fills one of `num_buffers` buffers at a time. Where the
    driver's memory is the host's there are none, and numbers are copied at once.
    """

    def __init__(
        self, driver: Driver, num_bytes: int = STAGING_BYTES, *, num_buffers: int = 2
    ) -> None:
        self._driver = driver
        self._num_bytes = num_bytes
        self._num_buffers = num_buffers
        self._free: SimpleQueue[tuple[torch.Tensor | None, Mark | None]] = SimpleQueue()
        """Buffers, none of which is made before somebody wants it, and the mark behind what each
        held last."""
        for _ in range(num_buffers):
            self._free.put((None, None))
        self._sending = Lock()

    def write(self, place: torch.Tensor, piece: torch.Tensor) -> None:
        """Put a host tensor where `place`, of its dtype and shape, lies in the driver's memory."""
        if self._driver.device.type == "cpu":
            place.copy_(piece)
            return
        if piece.numel() == 0:
            return
        if piece.nbytes <= self._num_bytes:
            self._send(place, piece)
            return
        axis = next(i for i, n in enumerate(piece.shape) if n > 1)
        each = piece.nbytes // piece.shape[axis]
        count = max(self._num_bytes // each, 1)
        for first in range(0, piece.shape[axis], count):
            extent = min(count, piece.shape[axis] - first)
            self.write(place.narrow(axis, first, extent), piece.narrow(axis, first, extent))

    def _send(self, place: torch.Tensor, piece: torch.Tensor) -> None:
        buffer, arrived = self._free.get()
        try:
            if buffer is None:
                buffer = self._driver.staging(self._num_bytes)
            if arrived is not None:
                arrived.wait()  # the buffer's last bytes have left
            held = buffer[: piece.nbytes].view(piece.dtype).view(piece.shape)
            held.copy_(piece)
            with self._sending:  # a copy and its mark, with nothing between them
                place.copy_(held, non_blocking=True)
                arrived = self._driver.mark()
        finally:
            self._free.put((buffer, arrived))  # also behind an error: others wait for buffers

    def finish(self) -> None:
        """Wait for all that travels, and give the buffers back. Nobody may write any more."""
        for _ in range(self._num_buffers):
            _, arrived = self._free.get()
            if arrived is not None:
                arrived.wait()
        for _ in range(self._num_buffers):
            self._free.put((None, None))
