"""Element types by the name that types, views and files use, and how they lie in bytes."""

from __future__ import annotations

DTYPE_BITS: dict[str, int] = {
    "f64": 64, "i64": 64, "f32": 32, "i32": 32, "bf16": 16, "f16": 16, "u8": 8, "si8": 8,
    "f8E4M3FN": 8, "f8E4M3FNUZ": 8, "f8E8M0FNU": 8, "f4E2M1FN": 4,
}  # fmt: skip
"""Bits of an element. Those of less than a byte are packed, the first in the low bits."""

DTYPE_BYTES: dict[str, int] = {
    name: bits // 8 for name, bits in DTYPE_BITS.items() if bits % 8 == 0
}
"""Bytes of an element, of those that have an address each: what views can name."""


def packed_bytes(dtype: str, count: int) -> int:
    """Bytes of so many elements behind one another; the last byte may hold fewer than fit."""
    return -(-count * DTYPE_BITS[dtype] // 8)
