"""Fills a segment's inputs for one program: real rows, then padding."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from lostwax.backends.runtime.derive import StepInputs
from lostwax.backends.runtime.driver import Driver, Mark, Passed
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.backends.runtime.memory import Buffer
from lostwax.backends.runtime.state_table import NUMPY_DTYPES
from lostwax.ir.contract.program import HEADS, Bucket, Segment
from lostwax.ir.contract.step import STEP_INPUTS, input_shape
from lostwax.ir.contract.step_state import NO_SEQ

_UNKNOWN = -1
"""No page list has this mark."""


class InputMemory:
    """Where packed inputs lie for the host, and for the device: one buffer where that reads it."""

    def __init__(self, device: Buffer, driver: Driver) -> None:
        self.device = device
        self.host = driver.memory.mirror(device)
        self._driver = driver
        self._sent: Mark = Passed()
        self.holder: StepBuffers | None = None
        """Whose step lies here; None where nobody's."""

    @property
    def array(self) -> Any:
        """u8, what the host writes."""
        return self._driver.memory.array(self.host)

    def wait(self) -> None:
        """Wait until what was last sent may be written over."""
        self._sent.wait()

    def send(self, num_bytes: int) -> None:
        """Copy the first bytes to the device, behind what runs there."""
        if self.host is not self.device:
            self._driver.memory.copy(self.device[:num_bytes], self.host[:num_bytes])
            self._sent = self._driver.mark()


class StepBuffers:
    """The packed inputs of one bucket, over memory that several buckets share.

    Rows of the page table stay from one step to the next, and are written only where the sequence
    or its pages have changed: they are megabytes at a long context.
    """

    def __init__(self, segment: Segment, bucket: Bucket, memory: InputMemory) -> None:
        self.offsets, self._num_bytes = input_offsets(segment, bucket)
        self.memory = memory
        self._is_head = segment in HEADS
        raw = memory.array
        self._arrays: dict[str, Any] = {}  # numpy arrays of two dtypes
        for name, start in self.offsets.items():
            spec, shape = STEP_INPUTS[name], input_shape(name, bucket)
            flat = raw[start : start + 4 * prod(shape)].view(NUMPY_DTYPES[spec.dtype])
            self._arrays[name] = flat.reshape(shape)
        self._held = np.empty(bucket.reqs, np.int64)
        """Marks of the page lists that the page table holds (`StateTable.page_marks`)."""
        self._seqs = np.empty(bucket.reqs, np.int32)

    def fill(self, inputs: StepInputs, rows: slice = slice(None)) -> None:
        """Write what fits the bucket, padding as STEP_INPUTS says; a head takes `rows` of what the
        step asks for, a body all of it."""
        self.memory.wait()
        if self.memory.holder is not self:  # another bucket has written over the page table
            self._held.fill(_UNKNOWN)
            self.memory.holder = self
        for name, array in self._arrays.items():
            if name == "num_rows":
                array[0] = len(inputs.values["logit_rows" if self._is_head else "tokens"][rows])
                continue
            if name == "page_table":
                self._fill_page_table(array, inputs)
                continue
            values = inputs.values[name][rows]
            count = len(values)
            array[:count] = values
            if count < len(array):
                array[count:] = values[-1] if name == "q_starts" else STEP_INPUTS[name].padding
        self.memory.send(self._num_bytes)

    def _fill_page_table(self, array: Any, inputs: StepInputs) -> None:
        """Copy the page lists that differ from what `array` [B, P] holds."""
        count, state = len(inputs.seqs), inputs.state
        self._seqs[:count] = inputs.seqs
        self._seqs[count:] = NO_SEQ
        wanted = state.page_marks[self._seqs]
        stale = (wanted != self._held).nonzero()[0]
        if len(stale):
            array[stale] = state.pages[self._seqs[stale], : array.shape[1]]
            self._held = wanted

    def pad(self) -> None:
        """Write a step without rows: what programs run over before the first real step."""
        self.memory.wait()
        for name, array in self._arrays.items():
            array.fill(0 if name == "q_starts" else STEP_INPUTS[name].padding)
        self.memory.holder = None
        self.memory.send(self._num_bytes)
