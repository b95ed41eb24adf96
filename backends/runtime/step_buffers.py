"""Fills a segment's inputs for one program: real rows, then padding."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from lostwax.backends.runtime.driver import Driver, Mark, Passed
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.ir.contract.program import HEADS, Bucket, Segment
from lostwax.ir.contract.step import STEP_INPUTS, StepBatch, input_shape

_NUMPY = {"i32": np.int32, "f32": np.float32}


class InputMemory:
    """Where packed inputs lie for the host, and for the device: one buffer where that reads it."""

    def __init__(self, device: torch.Tensor, driver: Driver) -> None:
        self.device = self.host = device
        self._driver = driver
        self._sent: Mark = Passed()
        if device.device.type != "cpu":
            self.host = torch.zeros_like(device, device="cpu", pin_memory=True)

    def wait(self) -> None:
        """Wait until what was last sent may be written over."""
        self._sent.wait()

    def send(self, num_bytes: int) -> None:
        """Copy the first bytes to the device, behind what runs there."""
        if self.host is not self.device:
            self.device[:num_bytes].copy_(self.host[:num_bytes], non_blocking=True)
            self._sent = self._driver.mark()


class StepBuffers:
    """The packed inputs of one bucket, over memory that several buckets share."""

    def __init__(self, segment: Segment, bucket: Bucket, memory: InputMemory) -> None:
        self.offsets, self._num_bytes = input_offsets(segment, bucket)
        self.memory = memory
        self._is_head = segment in HEADS
        raw = memory.host.numpy()
        self._arrays: dict[str, Any] = {}  # numpy arrays of two dtypes
        for name, start in self.offsets.items():
            spec, shape = STEP_INPUTS[name], input_shape(name, bucket)
            flat = raw[start : start + 4 * prod(shape)].view(_NUMPY[spec.dtype])
            self._arrays[name] = flat.reshape(shape)

    def fill(self, batch: StepBatch, rows: slice = slice(None)) -> None:
        """Write what fits the bucket, padding as STEP_INPUTS says; a head takes `rows` of what the
        batch asks for, a body all of it."""
        self.memory.wait()
        for name, array in self._arrays.items():
            if name == "num_rows":
                array[0] = len(batch.logit_rows[rows] if self._is_head else batch.tokens)
                continue
            spec, values = STEP_INPUTS[name], getattr(batch, name)[rows]
            if name == "page_table":
                array.fill(spec.padding)
                for row, pages in enumerate(values):
                    array[row, : len(pages)] = pages
                continue
            count = len(values)
            array[:count] = values
            array[count:] = values[-1] if name == "q_starts" else spec.padding
        self.memory.send(self._num_bytes)

    def pad(self) -> None:
        """Write a step without rows: what programs run over before the first real step."""
        self.memory.wait()
        for name, array in self._arrays.items():
            array.fill(0 if name == "q_starts" else STEP_INPUTS[name].padding)
        self.memory.send(self._num_bytes)
