"""How many stages of tiles a program keeps in shared memory on targets without tensor maps.

Triton's pipeline for AMD's GPUs keeps all stages but the one in use there: seen in what it compiled
for gfx942 and gfx950 (`tests/backends/test_rocm_tiles.py`). Knows no op and no device.
"""

from __future__ import annotations

from lostwax.ir.contract.target import Target

_LANES = 32  # of a warp, by which warps were counted where the rules were measured
_LEAST_WARPS = 4


def stages(target: Target, asked: int, by_rule: int, stage_bytes: int) -> int:
    """Stages of `stage_bytes` each: those asked for, whatever they take (the compiler refuses what
    does not fit), or where it is 0 the rule's that leave room for a second program."""
    if asked or target.tensor_maps:  # there the rules are measured
        return asked or by_rule
    room = target.shared_memory_bytes
    return min(by_rule, 1 + room // stage_bytes, max(2, 1 + room // 2 // stage_bytes))


def warps(target: Target, by_rule: int) -> int:
    """Waves of as many lanes as so many warps of 32 have, four at least."""
    return max(_LEAST_WARPS, by_rule * _LANES // max(_LANES, target.wave_size))
