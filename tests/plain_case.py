"""One lowering with small inputs, as plain values. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.plain_match import Value
from lostwax.ir.contract.cache_layout import in_encoding
from lostwax.ir.contract.program import Bucket, Const
from lostwax.ir.contract.scale_layout import (
    FP8_BLOCK,
    FP8_BLOCKS,
    ScaleLayout,
)

Array = np.ndarray
Attributes = Mapping[tuple[str, str], Const]
ROWS, REAL = 5, 3
TILED_ROWS, TILED_REAL = 33, 17
"""Three tiles of 16: one whole, one with a single real row, one without any."""


@dataclass
class Case:
    """A lowering with its inputs; `outputs` have a row a row of the step, and so do `of_rows`."""

    lowering: Lowering
    rows: int
    real: int
    attributes: Mapping[tuple[str, str], Const] = field(
        default_factory=dict[tuple[str, str], Const]
    )
    knobs: dict[str, int] = field(default_factory=dict[str, int])
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    data: dict[str, Array] = field(default_factory=dict[str, Array])
    stored: dict[str, Value] = field(default_factory=dict[str, Value])
    of_rows: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    encoding: str = "f8E4M3FN"
    absorbs: bool = False
    """Whether host calls run over all rows on both sides of the kernels, which then leave alone
    their rows of the workspace, not of the output."""

    def give_joined(self, widths: Mapping[str, int], k: int) -> None:
        """fp8 weights of k columns that lie behind one another, as the first one's."""
        first, rows = next(iter(widths)), sum(widths.values())
        for name, width in widths.items():
            self.values[name] = Value((width, k), "f8E4M3FN", scale=FP8_BLOCKS)
        scales = (-(-rows // FP8_BLOCK), -(-k // FP8_BLOCK))
        self.stored[first] = Value((rows, k), "f8E4M3FN", scale=FP8_BLOCKS)
        self.stored[f"{first}:scale"] = Value(scales, "f32")
        self.data[first] = normal(rows, k)
        self.data[f"{first}:scale"] = 0.1 * np.abs(normal(*scales))

    def encoded(self, encoding: str) -> Case:
        """The same with fp8 values and caches in this encoding."""

        def of(value: Value) -> Value:
            dtype = encoding if value.dtype.startswith("f8") else value.dtype
            layout = value.layout and in_encoding(value.layout, encoding)
            return replace(value, dtype=dtype, layout=layout)

        values = {name: of(value) for name, value in self.values.items()}
        stored = {name: of(value) for name, value in self.stored.items()}
        return replace(self, values=values, stored=stored, encoding=encoding)

    def give(self, name: str, array: Array, dtype: str, scale: ScaleLayout | None = None) -> None:
        """An input."""
        self.values[name] = Value(array.shape, dtype, scale=scale)
        self.data[name] = array.astype(np.int32) if dtype == "i32" else array

    @property
    def bucket(self) -> Bucket:
        """One row a request."""
        return Bucket(self.rows, self.rows, 2, 0)


def normal(*shape: int) -> Array:
    """The same numbers for the same shape."""
    return np.random.default_rng(prod(shape)).standard_normal(shape)
