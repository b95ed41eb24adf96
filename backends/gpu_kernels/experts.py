"""Triton kernels of routed experts for few rows: every chosen expert is streamed once a pair.

A pair is a row with one of its choices. No atomics: a row's sum has a fixed order. Know no target.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _weights(
    weight, scale, first_row, column, expert, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_SCALE: tl.constexpr,
):  # fmt: skip
    """f32 [BLOCK_ROWS, columns] of one expert's [ROWS, COLUMNS]; rows lie in one scale block."""
    row = first_row + tl.arange(0, BLOCK_ROWS)
    inside = (row < ROWS)[:, None] & (column < COLUMNS)[None, :]
    at = (expert.to(tl.int64) * ROWS + row)[:, None] * COLUMNS + column[None, :]
    found = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    if BLOCK_SCALE:
        wide: tl.constexpr = (COLUMNS + BLOCK_SCALE - 1) // BLOCK_SCALE
        before = expert * ((ROWS + BLOCK_SCALE - 1) // BLOCK_SCALE)
        block = (before + first_row // BLOCK_SCALE).to(tl.int64) * wide
        factor = tl.load(scale + block + column // BLOCK_SCALE, mask=column < COLUMNS, other=0.0)
        found = found * factor[None, :]
    return found


@triton.jit
def expert_hidden(
    x,  # [T, DIM]
    ids,  # [T, TOP_K]
    gate,  # [E, INTER, DIM]
    gate_scale,  # f32, one a BLOCK_SCALE square; anything where that is 0
    up,
    up_scale,
    hidden,  # [T * TOP_K, INTER] f32
    real_rows,  # [1] i32: pairs of rows behind it are left alone
    x_stride,
    INTER: tl.constexpr,
    DIM: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK_INTER: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
):
    """silu(gate x) * (up x) of one pair and block of rows; pairs of expert -1 are left alone."""
    pair = tl.program_id(0)
    if pair // TOP_K >= tl.load(real_rows):
        return
    first_row = tl.program_id(1) * BLOCK_INTER
    expert = tl.load(ids + pair)
    if expert >= 0:
        of_gate = tl.zeros((BLOCK_INTER, BLOCK_DIM), tl.float32)
        of_up = tl.zeros((BLOCK_INTER, BLOCK_DIM), tl.float32)
        for start in range(0, DIM, BLOCK_DIM):
            column = start + tl.arange(0, BLOCK_DIM)
            at = (pair // TOP_K).to(tl.int64) * x_stride + column
            value = tl.load(x + at, mask=column < DIM, other=0.0).to(tl.float32)[None, :]
            of_gate += value * _weights(
                gate, gate_scale, first_row, column, expert, INTER, DIM, BLOCK_INTER, BLOCK_SCALE
            )
            of_up += value * _weights(
                up, up_scale, first_row, column, expert, INTER, DIM, BLOCK_INTER, BLOCK_SCALE
            )
        g = tl.sum(of_gate, axis=1)
        u = tl.sum(of_up, axis=1)
        row = first_row + tl.arange(0, BLOCK_INTER)
        target = hidden + pair.to(tl.int64) * INTER + row
        tl.store(target, g / (1.0 + tl.exp(-g)) * u, mask=row < INTER)


@triton.jit
def expert_out(
    hidden,  # [T * TOP_K, INTER] f32
    ids,  # [T, TOP_K]
    weights,  # [T, TOP_K] f32
    down,  # [E, DIM, INTER]
    down_scale,
    out,  # [T, DIM]
    real_rows,  # [1] i32: rows behind it are left alone
    out_stride,
    INTER: tl.constexpr,
    DIM: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK_INTER: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
):
    """sum_k weights[k] * down_k hidden_k of one row and block of columns."""
    row = tl.program_id(0)
    if row >= tl.load(real_rows):
        return
    first = tl.program_id(1) * BLOCK_DIM
    total = tl.zeros((BLOCK_DIM, BLOCK_INTER), tl.float32)
    for k in range(0, TOP_K):
        pair = row.to(tl.int64) * TOP_K + k
        expert = tl.load(ids + pair)
        if expert >= 0:
            share = tl.load(weights + pair)
            for start in range(0, INTER, BLOCK_INTER):
                column = start + tl.arange(0, BLOCK_INTER)
                at = pair * INTER + column
                value = tl.load(hidden + at, mask=column < INTER, other=0.0) * share
                total += value[None, :] * _weights(
                    down, down_scale, first, column, expert, DIM, INTER, BLOCK_DIM, BLOCK_SCALE
                )
    target = first + tl.arange(0, BLOCK_DIM)
    result = tl.sum(total, axis=1).to(out.dtype.element_ty)
    tl.store(out + row.to(tl.int64) * out_stride + target, result, mask=target < DIM)
