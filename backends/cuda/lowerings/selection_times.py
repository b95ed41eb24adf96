"""How long attention to a selection takes in the expanded and in the absorbed form, on an H200.

Least squares over all sizes of `python benchmarks/dense_mha.py run FOLDER` (compiled with
--masked; benchmarks/results/2026-11-29-h200-masked-mha.json): bf16 caches, 2,048 keys a row, 16 and
128 heads, 512 to 2,048 rows behind up to 10,240 cached positions. Knows no lowering.
"""

from __future__ import annotations

_EXPANDED_US = 54.0
_CONTEXT_US, _PAIR_US = 3.10e-4, 9.76e-7
"""Of a head: to expand a position, and for a row to meet it. Off by 11 % at most, with 128 heads by
6 %."""

_BLOCK_HEADS = 64
_BLOCK_US, _HEAD_US = 0.486, 3.12e-3
"""Of a row: a block of heads, however many of it there are, and a head. Off by 7.1 % at most."""

_STEP, _MOST = 1024, 16384
"""Bounds are multiples of the one, and end at the other: 157 MB of keys, values and bits for 2,048
rows of 16 heads."""


def expanded_us(heads: int, contexts: int, pairs: int) -> float:
    """`pairs` of a row and a position that it sees, selected or not; fp8 rows take as long."""
    return _EXPANDED_US + heads * (_CONTEXT_US * contexts + _PAIR_US * pairs)


def absorbed_us(rows: int, heads: int) -> float:
    """Whatever the contexts; fp8 rows of 128 heads take a tenth longer."""
    return rows * (_BLOCK_US * -(-heads // _BLOCK_HEADS) + _HEAD_US * heads)


def most_contexts(rows: int, heads: int) -> int:
    """Positions of all requests together up to which the expanded form is the faster one in each
    step of a bucket of so many rows; 0 where there are none.

    The fewest rows that take the bucket are half of it: more pay for longer contexts. All of one
    request, as rows of several meet fewer positions.
    """
    fewest = rows // 2 + 1
    own = _PAIR_US * heads * fewest * (fewest - 1) / 2  # pairs with what lies behind a row
    spent = absorbed_us(fewest, heads) - _EXPANDED_US + own
    most = int(spent / (heads * (_CONTEXT_US + _PAIR_US * fewest)))
    return min(max(most, 0) // _STEP * _STEP, _MOST)
