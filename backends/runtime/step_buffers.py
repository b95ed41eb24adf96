"""Fills the step's inputs for one program: real rows, then padding. Knows no device but memory."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.ir.contract.program import Bucket
from lostwax.ir.contract.step import STEP_INPUTS, StepBatch, input_shape

_NUMPY = {"i32": np.int32, "f32": np.float32}


class StepBuffers:
    """The packed inputs of one bucket, over host memory that several buckets may share."""

    def __init__(self, bucket: Bucket, host: torch.Tensor) -> None:
        self.offsets, self.num_bytes = input_offsets(bucket)
        raw = host.numpy()
        self._arrays: dict[str, Any] = {}  # numpy arrays of two dtypes
        for name, spec in STEP_INPUTS.items():
            shape, start = input_shape(name, bucket), self.offsets[name]
            flat = raw[start : start + 4 * prod(shape)].view(_NUMPY[spec.dtype])
            self._arrays[name] = flat.reshape(shape)

    def fill(self, batch: StepBatch) -> None:
        """Write a batch that fits the bucket, padding as STEP_INPUTS says."""
        for name, spec in STEP_INPUTS.items():
            array, values = self._arrays[name], getattr(batch, name)
            if name == "page_table":
                array.fill(spec.padding)
                for row, pages in enumerate(values):
                    array[row, : len(pages)] = pages
                continue
            count = len(values)
            array[:count] = values
            array[count:] = values[-1] if name == "q_starts" else spec.padding

    def pad(self) -> None:
        """Write a step without rows: what programs run over before the first real step."""
        for name, spec in STEP_INPUTS.items():
            self._arrays[name].fill(0 if name == "q_starts" else spec.padding)
