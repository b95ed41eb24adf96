"""What every lostwax op has beside its fields: a cost, and helpers that its verifier shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation
from xdsl.utils.exceptions import VerifyException

from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.size import Size
from lostwax.ir.types import CacheType, TensorType


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes moved and floating-point operations done, each operand read once."""

    num_bytes: int
    flops: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.num_bytes + other.num_bytes, self.flops + other.flops)


def type_bytes(kind: Attribute, env: Mapping[str, int]) -> int:
    """Bytes of one value; caches count 0 (an op that reads a cache adds what it reads)."""
    if not isinstance(kind, TensorType):
        return 0
    shape = kind.at(env)
    total = prod(shape) * DTYPE_BYTES[kind.dtype_name]
    if (scale := kind.block_scale) is not None:
        *batch, rows, cols = shape
        blocks = -(-rows // scale.rows.data) * -(-cols // scale.cols.data)
        total += prod(batch) * blocks * DTYPE_BYTES[str(scale.dtype)]
    return total


def row_bytes(cache: CacheType) -> int:
    """Bytes of one cached row."""
    return cache.form.row_bytes(cache.row)


class LostwaxOp(IRDLOperation):
    """An op of this project: one short class with fields, traits and a shape rule."""

    def boundary_bytes(self, env: Mapping[str, int]) -> int:
        """Bytes of all tensor operands and results."""
        return sum(type_bytes(v.type, env) for v in (*self.operands, *self.results))

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Elementwise by default: every tensor moved once, one operation a result element."""
        shapes = [r.type.at(env) for r in self.results if isinstance(r.type, TensorType)]
        return Cost(self.boundary_bytes(env), sum(prod(s) for s in shapes))

    def shape(self, value: SSAValue) -> tuple[Size, ...]:
        """The symbolic shape of a tensor value."""
        if not isinstance(value.type, TensorType):
            raise VerifyException(f"{self.name}: expected a tensor, got {value.type}")
        return value.type.sizes

    def dtype(self, value: SSAValue) -> Attribute:
        """The element type of a tensor value."""
        if not isinstance(value.type, TensorType):
            raise VerifyException(f"{self.name}: expected a tensor, got {value.type}")
        return value.type.dtype

    def is_scaled(self, value: SSAValue) -> bool:
        """Whether a tensor value carries block scales."""
        return isinstance(value.type, TensorType) and value.type.block_scale is not None

    def cache(self, value: SSAValue) -> CacheType:
        """The type of a cache value."""
        if not isinstance(value.type, CacheType):
            raise VerifyException(f"{self.name}: expected a cache, got {value.type}")
        return value.type

    def require_requests(self, q_starts: SSAValue, page_table: SSAValue) -> None:
        """q_starts [B + 1] and page_table [B, P] speak of the same requests."""
        starts, table = self.shape(q_starts), self.shape(page_table)
        self.require(
            len(table) == 2 and starts == (table[0] + Size.of(1),),
            f"q_starts {q_starts.type} does not fit page_table {page_table.type}",
        )

    def require(self, holds: bool, message: str) -> None:
        """Raise a VerifyException that begins with the op's name unless `holds`."""
        if not holds:
            raise VerifyException(f"{self.name}: {message}")
