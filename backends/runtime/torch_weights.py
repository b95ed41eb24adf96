"""Makes stored weights by torch, in the memory of the device that a driver has."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from lostwax.backends.runtime.form_weight import Write
from lostwax.backends.runtime.staging import Staging
from lostwax.backends.runtime.tensors import TORCH_DTYPES
from lostwax.backends.runtime.torch_memory import TorchDevice
from lostwax.backends.runtime.torch_numbers import TorchNumbers
from lostwax.ir.contract.foreign_file import require_regular

ONE_THREAD_BYTES = 1 << 30
"""Weights of less are made by one thread, at about a gigabyte a second."""


class TorchWeights:
    """Satisfies `lostwax.backends.runtime.memory.WeightMaker`. Beside the weights the host holds no
    more than a piece in the making and two staging buffers."""

    numbers = TorchNumbers()

    def __init__(self, write: Write) -> None:
        self.write = write

    def open(self, path: Path) -> Any:  # safe_open has no public type
        """The file, mapped. Raises SafetensorError, too."""
        require_regular(path)
        return safe_open(path, framework="pt")

    def typed(self, buffer: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
        """The same memory."""
        return buffer.view(TORCH_DTYPES[dtype]).view(shape)


@contextmanager
def torch_weights(driver: TorchDevice, num_bytes: int) -> Generator[TorchWeights]:
    """What makes weights of so many bytes in all."""
    staging = Staging(driver)
    with torch.no_grad(), _few_threads(num_bytes):
        yield TorchWeights(staging.write)
        staging.finish()


@contextmanager
def _few_threads(weight_bytes: int) -> Generator[None]:
    """One thread for small weights: hundreds of short operators wait for each other's threads, a
    tenth of a second on idle cores and many seconds on busy ones."""
    threads = torch.get_num_threads()
    if weight_bytes < ONE_THREAD_BYTES:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
