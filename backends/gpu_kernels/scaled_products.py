"""Triton kernels of x W^T where both are fp8 with block scales, without a conversion of either.

x comes in one term or two (`fp8_terms`), whose products are summed before the scales of a block
are multiplied in. Tiles are read by tensor maps (MAPS), or through pointers on targets without
them; both give zeros outside. Know no target.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.arrival import settled
from lostwax.backends.gpu_kernels.conversions import to_float


@triton.jit
def tiles_of(matrix, ROWS: tl.constexpr, COLUMNS: tl.constexpr, MAPS: tl.constexpr):
    """What loads tiles [ROWS, COLUMNS]: the tensor map that came with MAPS, else made of a pointer,
    rows, columns and the stride of rows."""
    if MAPS:
        return matrix
    else:
        # the last stride is to be a number of the source, not a value
        stride = matrix[3].to(tl.int64)
        return tl.make_tensor_descriptor(
            matrix[0], [matrix[1], matrix[2]], [stride, 1], [ROWS, COLUMNS]
        )


@triton.jit
def product(a, w, total, SWAP: tl.constexpr, WIDE_DOT: tl.constexpr):
    """total + a w^T of a [ROWS, K] and w [N, K]; SWAP: its transpose, [N, ROWS].

    Matrix units take 64 values or more on one side, 8 or more on the other: of few rows the weight
    stands on the first. WIDE_DOT takes it in f32, which the interpreter does right.
    """
    if WIDE_DOT:
        a = a.to(tl.float32)
        w = w.to(tl.float32)
    if SWAP:
        return tl.dot(w, a.T, total, input_precision="ieee")
    else:
        return tl.dot(a, w.T, total, input_precision="ieee")


@triton.jit
def zeros_of(ROWS: tl.constexpr, N: tl.constexpr, SWAP: tl.constexpr):
    """Where `product` begins."""
    if SWAP:
        return tl.zeros((N, ROWS), tl.float32)
    else:
        return tl.zeros((ROWS, N), tl.float32)


@triton.jit
def scaled(total, factor, SWAP: tl.constexpr):
    """What `product` gave with each row times its factor [ROWS]."""
    if SWAP:
        return total * factor[None, :]
    else:
        return total * factor[:, None]


@triton.jit
def by_rows(total, SWAP: tl.constexpr):
    """What `product` gave as [ROWS, N]."""
    if SWAP:
        return total.T
    else:
        return total


@triton.jit
def take_turns(tiles, blocks, GROUP: tl.constexpr):
    """Tile of rows and block of outputs of a program: GROUP tiles, one behind another, take turns
    over a block's weights, which then come from the cache."""
    program = tl.program_id(0)
    first = program // (GROUP * blocks) * GROUP
    in_group = tl.minimum(tiles - first, GROUP)
    within = program % (GROUP * blocks)
    return first + within % in_group, within // in_group


@triton.jit
def linear_tiles(
    x,  # tiles [BLOCK_ROWS, BLOCK_SCALE] of [TERMS * T, K] fp8
    x_scale,  # f32, a row and block
    weight,  # tiles [BLOCK_N, BLOCK_SCALE] of [N, K] fp8
    weight_scale,  # [ceil(N / BLOCK_SCALE), ceil(K / BLOCK_SCALE)] f32
    out,  # [T, N]; where not SUMMED [splits, T, N]
    partial,  # [programs of a split, SUMMED, BLOCK_ROWS, BLOCK_N] f32, where SUMMED; else anything
    arrived,  # [programs of a split] i32, where SUMMED; else anything
    real_rows,  # [1] i32: rows behind it are left alone
    num_rows,
    N,
    K,
    split_blocks,
    scale_row,
    scale_block,
    out_stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_SCALE: tl.constexpr,
    GROUP: tl.constexpr,
    TERMS: tl.constexpr,
    SWAP: tl.constexpr,
    SUMMED: tl.constexpr,
    MAPS: tl.constexpr,
    AHEAD: tl.constexpr,
    WIDE_DOT: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
    SETTLE: tl.constexpr = 0,
):
    """One tile of outputs over one split of K; BLOCK_N divides BLOCK_SCALE.

    SUMMED: so many splits, of which the one that comes last adds all in their order: `arrived`
    counts them, and is left zero. 0: each split writes a plane of its own. AHEAD: stages in which
    all that a step reads is read ahead; 0: tiles alone.
    """
    x = tiles_of(x, BLOCK_ROWS, BLOCK_SCALE, MAPS)
    weight = tiles_of(weight, BLOCK_N, BLOCK_SCALE, MAPS)
    row_tiles = (num_rows + BLOCK_ROWS - 1) // BLOCK_ROWS
    tile, n_block = take_turns(row_tiles, (N + BLOCK_N - 1) // BLOCK_N, GROUP)
    real = tl.load(real_rows)
    first_row = tile * BLOCK_ROWS
    # The first tile waits for nothing: it has a real row, or writes none. One `if` would wait.
    if first_row > 0:  # noqa: SIM102
        if first_row >= real:
            return
    first_n = n_block * BLOCK_N
    split = tl.program_id(1)
    row = first_row + tl.arange(0, BLOCK_ROWS)
    readable = tl.minimum(row, num_rows - 1).to(tl.int64)
    wide = (K + BLOCK_SCALE - 1) // BLOCK_SCALE
    of_weight = weight_scale + (first_n // BLOCK_SCALE) * wide
    total = zeros_of(BLOCK_ROWS, BLOCK_N, SWAP)
    last = tl.minimum((split + 1) * split_blocks, wide)
    stages: tl.constexpr = AHEAD if AHEAD > 0 else None
    for block in tl.range(split * split_blocks, last, num_stages=stages):
        w = weight.load([first_n, block * BLOCK_SCALE])
        of_block = tl.load(of_weight + block)
        zero = zeros_of(BLOCK_ROWS, BLOCK_N, SWAP)
        a = x.load([first_row, block * BLOCK_SCALE])
        own = x_scale + readable * scale_row + tl.cast(block, tl.int64) * scale_block
        factor = tl.load(own)
        found = product(a, w, zero, SWAP, WIDE_DOT)
        if TERMS == 2:
            low = x.load([num_rows + first_row, block * BLOCK_SCALE])
            found = product(low, w, found, SWAP, WIDE_DOT)
        total += scaled(found, factor * of_block, SWAP)
    n = first_n + tl.arange(0, BLOCK_N)
    inside = (row < real)[:, None] & (n < N)[None, :]
    target = out + row.to(tl.int64)[:, None] * out_stride + n[None, :]
    total = by_rows(total, SWAP)
    if SUMMED == 0:
        target += tl.cast(split * num_rows, tl.int64) * out_stride
        tl.store(target, to_float(total, out.dtype.element_ty, ROUND_FIRST), mask=inside)
    else:
        place = tl.arange(0, BLOCK_ROWS)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        program = tl.program_id(0)
        parts = partial + program.to(tl.int64) * SUMMED * (BLOCK_ROWS * BLOCK_N) + place
        tl.store(parts + split * (BLOCK_ROWS * BLOCK_N), total, mask=inside)
        settled(SETTLE)  # every thread's part is written before this program counts itself
        if tl.atomic_add(arrived + program, 1, sem="acq_rel") == SUMMED - 1:
            tl.store(arrived + program, 0)
            whole = tl.zeros((BLOCK_ROWS, BLOCK_N), tl.float32)
            for each in tl.static_range(SUMMED):  # unrolled: the reads do not wait for each other
                part = parts + each * (BLOCK_ROWS * BLOCK_N)
                whole += tl.load(part, mask=inside, other=0.0, cache_modifier=".cg")
            tl.store(target, to_float(whole, out.dtype.element_ty, ROUND_FIRST), mask=inside)
