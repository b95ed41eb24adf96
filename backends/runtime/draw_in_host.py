"""Fills the host's memory with what golden probes hold, by numpy."""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np

from lostwax.backends.runtime.draw import array_of
from lostwax.backends.runtime.form_weight import (
    SourceTensors,
    form_into,
    reads_scales_alone,
    wants_scales,
)
from lostwax.backends.runtime.host_weights import HostWeights
from lostwax.backends.runtime.memory import Content
from lostwax.backends.runtime.undefined import fill_undefined
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.probe import Given, GivenPart, GivenWeight
from lostwax.ir.contract.ranks import ALONE
from lostwax.ir.contract.weights import StoredWeight
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array


class HostDrawing:
    """Satisfies `lostwax.backends.runtime.memory.Drawing`."""

    def given(self, given: Given, num_bytes: int) -> Content:
        """The data, and NaN where it is undefined."""

        def put(buffer: Array) -> None:
            buffer[...] = np.ascontiguousarray(array_of(given.data)).reshape(-1).view(np.uint8)
            fill_undefined(given, buffer)

        return Content(num_bytes, put)

    def weight(self, weight: GivenWeight) -> Content:
        """Formed over the buffer itself."""
        stored = weight.stored

        def put(buffer: Array) -> None:
            buffer[...] = 0
            readers = [[partial(_source, part, stored)] for part in weight.parts]
            maker = HostWeights()
            typed = maker.typed(buffer, stored.dtype, stored.shape)
            form_into(typed, stored, readers, ALONE, maker.write, maker.numbers)

        return Content(prod(stored.shape) * DTYPE_BYTES[stored.dtype], put)


def _source(part: GivenPart, stored: StoredWeight) -> SourceTensors:
    """One part, of which only what the steps read is drawn."""
    if reads_scales_alone(stored.steps):
        none = np.zeros(1, NUMPY_DTYPES[part.values.dtype])
        values = np.broadcast_to(none, part.values.shape)
    else:
        values = array_of(part.values)
    if part.scales is None or not wants_scales(stored.steps):
        return SourceTensors(values)
    return SourceTensors(values, array_of(part.scales))
