"""Brings a program's outputs to the host, all of them by one copy. Knows no step and no order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from lostwax.backends.runtime.allocation import allocated
from lostwax.backends.runtime.driver import Driver


class ResultCopy:
    """One program's outputs: tensors [rows or more, ...] over the driver's memory."""

    def __init__(self, outputs: Mapping[str, torch.Tensor], rows: int, driver: Driver) -> None:
        self._outputs = dict(outputs)
        self._driver = driver
        self._packed: torch.Tensor | None = None
        if driver.device.type != "cpu":
            # Steps run one after another, so that those in flight share it.
            size = sum(tensor[:rows].numel() * tensor.element_size() for tensor in outputs.values())
            self._packed = allocated(driver, size, "a step's results")

    def start(self, rows: int) -> Callable[[], dict[str, Any]]:
        """Enqueue the copy of the first `rows` rows; the function reads them as lists, by name.

        It may be called once a mark made behind this has passed. What it reads is a copy that later
        steps do not touch.
        """
        parts = {name: tensor[:rows] for name, tensor in self._outputs.items()}
        flat = [part.reshape(-1).view(torch.uint8) for part in parts.values()]
        sizes = [part.numel() for part in flat]
        if self._packed is None:
            host = torch.cat(flat)
        else:
            packed = torch.cat(flat, out=self._packed[: sum(sizes)])
            # torch keeps pinned blocks, and gives one away again only behind the copy into it.
            host = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=True)
            host.copy_(packed, non_blocking=True)

        def read() -> dict[str, Any]:
            # Cloned, since a view as a wider dtype must be aligned.
            pieces = [piece.clone() for piece in host.split_with_sizes(sizes)]
            return {
                name: piece.view(part.dtype).reshape(part.shape).tolist()
                for (name, part), piece in zip(parts.items(), pieces, strict=True)
            }

        return read
