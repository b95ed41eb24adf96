"""24 random bits for each (seed, index): one integer hash, the same in numpy and on a device.

Both have the same operators on int64, which wraps; so one text serves both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lostwax.ir.reference.dtype import Array

if TYPE_CHECKING:
    import torch

Integers = TypeVar("Integers", Array, "torch.Tensor")
"""int64 in numpy or torch."""

_WORD = 1 << 64


def _signed(value: int) -> int:
    """The int64 with these 64 bits."""
    value %= _WORD
    return value - _WORD if value >= _WORD >> 1 else value


GAMMA = 0x9E3779B97F4A7C15
"""Odd, near 2^64 / golden ratio: what splitmix64 adds for every number."""
_STEP = _signed(GAMMA)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _right(x: Integers, bits: int) -> Integers:
    """Shifted right with zeros; `>>` of int64 copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def bits24(seed: int, index: Integers) -> Integers:
    """The upper 24 bits of splitmix64's output number `index` (from 0) from state `seed`."""
    x = index * _STEP + _signed(seed + GAMMA)
    x = (x ^ _right(x, 30)) * _FIRST
    x = (x ^ _right(x, 27)) * _SECOND
    return _right(x ^ _right(x, 31), 40)
