"""A strided tensor inside a buffer: what launches are given of memory. Knows no device."""

from __future__ import annotations

from math import prod
from typing import Literal

import msgspec

from lostwax.ir.contract.bounds import Bytes, OpenShape, Shape
from lostwax.ir.contract.dtypes import DTYPE_BYTES

Space = Literal["arena", "carry", "state", "weight", "plane", "input", "zeroed"]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A strided tensor inside one buffer.

    `space` and `name` say which buffer: `arena` (name empty), `carry` (delta/residual in or out,
    placed in the arena by the call), `state` (rows that outlive a program: `HIDDEN`, `MASKS`,
    `BIASES`, `COUNTS`), `weight` (name relative to the call's prefix), `plane` (cache plane of
    the call's layer, as [pages, page_tokens, row]), `input` (field of StepInputs), `zeroed` (name
    empty; all zeros between launches).
    `strides` count elements, `offset` counts bytes from the start of that buffer.
    """

    space: Space
    name: str
    dtype: str
    shape: OpenShape
    strides: Shape
    offset: Bytes = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the elements, as if dense."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def span_bytes(self) -> int:
        """Bytes from the first element to the last; 0 without elements or with open pages."""
        if any(n < 1 for n in self.shape):
            return 0
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return (last + 1) * DTYPE_BYTES[self.dtype]
