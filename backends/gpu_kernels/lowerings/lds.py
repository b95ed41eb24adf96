"""How many stages of tiles a program keeps in shared memory on targets without tensor maps.

Triton's pipeline for AMD's GPUs keeps all stages but the one in use there: seen in what it compiled
for gfx942 and gfx950 (`tests/backends/test_rocm_tiles.py`). Knows no op and no device.
"""

from __future__ import annotations

from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.ir.contract.target import Target

_LANES = 32  # of a warp, by which warps were counted where the rules were measured
_LEAST_WARPS = 4


def stages(target: Target, knob: str, asked: int, by_rule: int, stage_bytes: int) -> int:
    """Stages of `stage_bytes` each: those asked for, or where it is 0 the rule's that leave room
    for a second program. Raises KernelCompileError for more than fit, with the most that do.
    """
    if target.tensor_maps:  # measured there: the compiler has the last word
        return asked or by_rule
    room = target.shared_memory_bytes
    most = 1 + room // stage_bytes
    if asked > most:
        raise KernelCompileError(
            f"{knob}={asked} takes {(asked - 1) * stage_bytes} bytes of shared memory, the target"
            f" {target.name} has {room}: the next legal one is {knob}={most}"
        )
    return asked or min(by_rule, most, max(2, 1 + room // 2 // stage_bytes))


def warps(target: Target, by_rule: int) -> int:
    """Waves of as many lanes as so many warps of 32 have, four at least."""
    return max(_LEAST_WARPS, by_rule * _LANES // max(_LANES, target.wave_size))
