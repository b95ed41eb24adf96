"""A program's outputs on a device, brought to the host by one copy. Knows no step and no order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lostwax.backends.runtime.allocation import allocated
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.result_copy import ReadRows


class PackedResults:
    """One program's outputs: tensors [rows or more, ...] over the driver's memory."""

    def __init__(self, outputs: Mapping[str, Any], rows: int, driver: Driver) -> None:
        self._outputs: dict[str, torch.Tensor] = dict(outputs)
        # Steps run one after another, so that those in flight share it.
        size = sum(
            tensor[:rows].numel() * tensor.element_size() for tensor in self._outputs.values()
        )
        self._packed = allocated(driver, size, "a step's results")

    def start(self, rows: int) -> ReadRows:
        """Enqueue the copy of the first `rows` rows; the function reads them as lists, by name."""
        parts = [tensor[:rows] for tensor in self._outputs.values()]
        packed = packed_bytes(parts, self._packed)
        # torch keeps pinned blocks, and gives one away again only behind the copy into it.
        host = torch.empty(packed.numel(), dtype=torch.uint8, pin_memory=True)
        host.copy_(packed, non_blocking=True)
        return lambda: dict(zip(self._outputs, unpacked(host, parts), strict=True))


def packed_bytes(parts: Sequence[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
    """The parts' bytes, one part behind another, at the start of u8 `out`."""
    flat = [part.reshape(-1).view(torch.uint8) for part in parts]
    return torch.cat(flat, out=out[: sum(each.numel() for each in flat)])


def unpacked(packed: torch.Tensor, parts: Sequence[torch.Tensor]) -> list[Any]:
    """What was packed, as lists in the parts' shapes and dtypes; `packed` lies on the host."""
    sizes = [part.numel() * part.element_size() for part in parts]
    # Cloned, since a view as a wider dtype must be aligned.
    pieces = [piece.clone() for piece in packed.split_with_sizes(sizes)]
    return [
        piece.view(part.dtype).reshape(part.shape).tolist()
        for part, piece in zip(parts, pieces, strict=True)
    ]
