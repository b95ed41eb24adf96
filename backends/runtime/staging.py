"""Moves host tensors into device memory through two buffers of a bounded size. Knows no weight."""

from __future__ import annotations

import torch

from lostwax.backends.runtime.driver import Mark
from lostwax.backends.runtime.torch_memory import TorchDevice

STAGING_BYTES = 32 << 20
"""Of each of the two buffers: long enough copies for a bus, short enough to hold twice."""


class Staging:
    """Copies without waiting: one buffer is filled while the other's bytes travel.

    Where the driver's memory is the host's there are no buffers, and numbers are copied at once.
    """

    def __init__(self, driver: TorchDevice, num_bytes: int = STAGING_BYTES) -> None:
        self._driver = driver
        self._num_bytes = num_bytes
        self._buffers: list[torch.Tensor] = []
        self._arrived: list[Mark | None] = [None, None]
        self._next = 0

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
        if not self._buffers:
            self._buffers = [self._driver.staging(self._num_bytes) for _ in range(2)]
        turn, self._next = self._next, 1 - self._next
        arrived = self._arrived[turn]
        if arrived is not None:
            arrived.wait()  # the buffer's last bytes have left
        held = self._buffers[turn][: piece.nbytes].view(piece.dtype).view(piece.shape)
        held.copy_(piece)
        place.copy_(held, non_blocking=True)
        self._arrived[turn] = self._driver.mark()

    def finish(self) -> None:
        """Wait for all that travels, and give the buffers back."""
        for arrived in self._arrived:
            if arrived is not None:
                arrived.wait()
        self._arrived, self._buffers = [None, None], []
