"""Makes stored weights in the host's memory by numpy, of files that are mapped."""

from __future__ import annotations

from pathlib import Path

from lostwax.backends.runtime.array_numbers import ArrayNumbers
from lostwax.backends.runtime.mapped_tensors import MappedTensors
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array


class HostWeights:
    """Satisfies `lostwax.backends.runtime.memory.WeightMaker`."""

    numbers = ArrayNumbers()

    def open(self, path: Path) -> MappedTensors:
        """The file, mapped."""
        return MappedTensors(path)

    def typed(self, buffer: Array, dtype: str, shape: tuple[int, ...]) -> Array:
        """The same memory."""
        return buffer.view(NUMPY_DTYPES[dtype]).reshape(shape)

    def write(self, place: Array, piece: Array) -> None:
        """Copies."""
        place[...] = piece
