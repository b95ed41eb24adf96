"""How absorbed MLA over split keys is cut: heads and keys of a program, splits of a row.

Knows sizes and facts of a target, no op.
"""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.launches import next_power_of_two
from lostwax.backends.lowering import Knobs
from lostwax.ir.contract.target import Target

MIN_DOT = 16  # the matrix units' smallest side
_MANY_HEADS = 64  # from here on blocks of heads are worth fewer reads of the keys
_WGMMA_HEADS = 64  # from here on Triton takes a warp group's dots, and keeps the keys twice

_WIDE_ROW = 1024  # bytes of a key's elements in the dots


def block_of(width: int) -> int:
    """The power of two that holds so many elements of one side of a dot."""
    return max(MIN_DOT, next_power_of_two(width))


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How one row's keys are cut: `splits` programs of `split_keys` keys, the last maybe less."""

    keys: int
    splits: int
    split_keys: int

    @staticmethod
    def of(keys: int, programs: int, block_keys: int, wanted: int, compute_units: int) -> SplitPlan:
        """About one program a compute unit; `wanted` 0 decides by that, else asks for so many."""
        blocks = -(-keys // block_keys)
        filling = max(compute_units // programs, 2 if programs <= compute_units else 1)
        split_blocks = -(-blocks // min(blocks, wanted or filling))
        return SplitPlan(keys, -(-blocks // split_blocks), split_blocks * block_keys)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Heads and keys that one program takes at a time, and its warps."""

    heads: int
    keys: int
    num_warps: int

    def shared_bytes(self, width: int, element_bytes: int, target: Target) -> int:
        """An upper bound of what Triton was seen to take for rows of `width` elements.

        Queries in two parts (MFMA reads them from registers), keys (twice for the wide dots of 64
        heads), probabilities, and 4 KiB.
        """
        queries = 0 if "mfma" in target.matrix_units else 2 * self.heads
        keys = self.keys * (2 if self.heads >= _WGMMA_HEADS else 1)
        elements = (queries + keys) * width + self.heads * self.keys
        return elements * element_bytes + 4096


def choose_blocks(
    rows: int, heads: int, keys: int, row: tuple[int, int], target: Target, knobs: Knobs
) -> Blocks:
    """Blocks by the device and the sizes; knobs that are not 0 have the last word.

    `row` is a key's elements and the bytes of each. Warps are at least 4, else as of 32 lanes.

    Measured on an H100 with 2,048 keys and the query in one part (`benchmarks/gpu_kernels.py run`,
    2026-11-24; us): 16 heads, 64 keys and 8 warps against 32 and 4: 20.1/21.5 for 1 row, 24.7/25.6
    for 4, 40.6/45.9 for 16, 92.8/131.6 for 64, 172/163 for 128. 128 heads, 64 a block against 16:
    43.8/40.0 for 1 row, 55/75 for 4, 72/131 for 8. With the query in two parts a block of 64 spills
    488 bytes a thread and one of 32 none, so 32 are taken: not measured. MFMA keeps all queries in
    each wave's registers: compiled for gfx942, 32 heads or 32 keys of fp8_656 rows spill 97 to 307
    registers a lane, 16 of both none. No AMD GPU has timed them.
    """
    programs = rows * -(-heads // MIN_DOT)
    if "mfma" in target.matrix_units and row[0] * row[1] > _WIDE_ROW:
        wanted = Blocks(MIN_DOT, 16, 4)
    elif heads >= _MANY_HEADS and rows >= 4:
        wanted = Blocks(32, 32, 8)
    elif heads < _MANY_HEADS and 4 * programs < 3 * target.compute_units:
        wanted = Blocks(MIN_DOT, 64, 8)
    else:
        wanted = Blocks(MIN_DOT, 32, 4)
    lanes = max(1, target.wave_size // 32)
    smaller = (wanted, Blocks(MIN_DOT, 32, 4), Blocks(MIN_DOT, 16, 4))
    limit = target.shared_memory_bytes
    fitting = (b for b in smaller if b.shared_bytes(*row, target) <= limit)
    chosen = next(fitting, smaller[-1])
    return Blocks(
        knobs["block_heads"] or chosen.heads,
        knobs["block_keys"] or min(chosen.keys, block_of(keys)),
        knobs["num_warps"] or max(4, chosen.num_warps // lanes),
    )
