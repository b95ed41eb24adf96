"""Fills a device's memory with what golden probes hold, by torch: the bits that `draw.py` has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from lostwax.backends.runtime.draw import (
    LEAST_ROWS,
    NAN_EVERY,
    PERIOD,
    SCORE_TIES,
    array_of,
    edge_row,
    has_edges,
    scores_drawn,
)
from lostwax.backends.runtime.form_tensor import copy_piece
from lostwax.backends.runtime.form_weight import (
    SourceTensors,
    form_into,
    reads_scales_alone,
    wants_scales,
)
from lostwax.backends.runtime.hash_numbers import bits24
from lostwax.backends.runtime.memory import Content
from lostwax.backends.runtime.tensors import TORCH_DTYPES
from lostwax.backends.runtime.torch_numbers import TorchNumbers
from lostwax.backends.runtime.undefined import fill_undefined
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.probe import Data, Drawn, DrawnScores, Given, GivenPart, GivenWeight
from lostwax.ir.contract.ranks import ALONE
from lostwax.ir.contract.weights import StoredWeight
from lostwax.ir.reference.dtype import LARGEST, NUMPY_DTYPES, Array


class DeviceDrawing:
    """Satisfies `lostwax.backends.runtime.memory.Drawing`."""

    def given(self, given: Given, num_bytes: int) -> Content:
        """The data, and NaN where it is undefined."""
        content = content_of(given.data, num_bytes)

        def put(buffer: torch.Tensor) -> None:
            content.put(buffer)
            fill_undefined(given, buffer)

        return Content(num_bytes, put)

    def weight(self, weight: GivenWeight) -> Content:
        """A stored weight."""
        return weight_content(weight)


def content_of(data: Data, num_bytes: int) -> Content:
    """The content that the data stands for."""

    def put(buffer: torch.Tensor) -> None:
        _put(data, buffer)

    return Content(num_bytes, put)


def array_content(array: Array) -> Content:
    """The bytes of an array."""

    def put(buffer: torch.Tensor) -> None:
        if array.size:
            buffer.copy_(torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8))

    return Content(array.nbytes, put)


def weight_content(weight: GivenWeight) -> Content:
    """A stored weight: its parts are drawn, then formed as the loader forms them."""
    stored = weight.stored
    num_bytes = int(np.prod(stored.shape)) * DTYPE_BYTES[stored.dtype]

    def put(buffer: torch.Tensor) -> None:
        if len(weight.parts) == 1 and not stored.steps:
            _put(weight.parts[0].values, buffer)
            return
        readers = [[partial(_source, part, stored, buffer.device)] for part in weight.parts]
        typed = buffer.zero_().view(TORCH_DTYPES[stored.dtype]).view(stored.shape)
        form_into(typed, stored, readers, ALONE, copy_piece, TorchNumbers())

    return Content(num_bytes, put)


def _source(part: GivenPart, stored: StoredWeight, device: torch.device) -> SourceTensors:
    """One part, of which only what the steps read is drawn."""
    if reads_scales_alone(stored.steps):
        none = torch.zeros(1, dtype=TORCH_DTYPES[part.values.dtype], device=device)
        values = none.expand(part.values.shape)
    else:
        values = _tensor(part.values, device)
    if part.scales is None or not wants_scales(stored.steps):
        return SourceTensors(values)
    return SourceTensors(values, _tensor(part.scales, device))


def _tensor(data: Drawn, device: torch.device) -> torch.Tensor:
    """The data as a tensor of its own."""
    num_bytes = int(np.prod(data.shape)) * DTYPE_BYTES[data.dtype]
    buffer = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    _put(data, buffer)
    return buffer.view(TORCH_DTYPES[data.dtype]).view(data.shape)


def _put(data: Data, buffer: torch.Tensor) -> None:
    match data:
        case Drawn():
            _put_drawn(data, buffer)
        case DrawnScores():
            _put_drawn(scores_drawn(data), buffer)
            _structure(buffer.view(torch.float32).view(data.shape), data.visible)
        case _:
            array_content(array_of(data)).put(buffer)


def _put_drawn(data: Drawn, buffer: torch.Tensor) -> None:
    """Numbers of one period, copied as often as there is room."""
    each = DTYPE_BYTES[data.dtype]
    count = min(buffer.numel() // each, PERIOD)
    index = torch.arange(count, dtype=torch.int64, device=buffer.device)
    # As draw.py: in f32, each step rounded by itself.
    unit = bits24(data.seed, index).to(torch.float32) * 2.0**-24
    low, high = np.float32(data.low), np.float32(data.high)
    values = unit * float(high - low) + float(low)
    largest = LARGEST.get(data.dtype)
    if largest is not None:
        values = values.clamp(-largest, largest)
    period = values.to(TORCH_DTYPES[data.dtype]).view(torch.uint8)  # bytes: copied as they are
    for start in range(0, buffer.numel(), PERIOD * each):
        piece = buffer[start : start + PERIOD * each]
        piece.copy_(period[: piece.numel()])
    if data.edges and has_edges(data.shape):
        _put_edges(buffer.view(data.shape[0], -1), data)


def _put_edges(rows: torch.Tensor, data: Drawn) -> None:
    """Edge rows, as bytes [rows, bytes of a row]."""
    columns = np.arange(rows.shape[1] // DTYPE_BYTES[data.dtype])
    for row in range(1, LEAST_ROWS):
        edge = edge_row(row, columns).astype(NUMPY_DTYPES[data.dtype])
        array_content(edge).put(rows[row])


def _structure(scores: torch.Tensor, visible: Sequence[int]) -> None:
    """Ties, NaN and what is hidden, row by row."""
    for row, seen in enumerate(visible):
        values = scores[row]
        match row % LEAST_ROWS:
            case 1:
                values.copy_(torch.round(values * SCORE_TIES) / SCORE_TIES)
            case 2:
                values.zero_()
            case 3:
                values[::NAN_EVERY] = torch.nan
            case _:
                pass
        values[seen:] = -torch.inf
