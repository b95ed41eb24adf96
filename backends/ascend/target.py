"""Facts of the Ascend NPUs that the project compiles for. Knows no driver."""

from __future__ import annotations

from msgspec import structs

from lostwax.ir.contract.program import HEADS
from lostwax.ir.contract.target import Target

# Nothing measured: no Ascend device has run this. Cores and on-chip memory are the attributes that
# the published compiler gives modules for Ascend910B3 (ascendnpu-ir 1.2.0): 20 cube and 40 vector
# cores, 192 KiB of unified buffer a vector core. Memory is 64 GB, its bandwidth 1.6 TB/s and the
# dense rates of bf16 313 and int8 626 TFLOP/s as commonly quoted for that chip. The launch cost is
# assumed: an operator that is called from Python, which no graph replays.
# No fp8, and no f64: torch_npu computes that in f32.
ASCEND_910B = Target(
    name="ascend-910b",
    backend="ascend",
    arch="Ascend910B3",
    dtypes=("f32", "bf16", "f16", "i64", "i32", "u8", "si8"),
    memory_bytes=64 << 30,
    bandwidth_gbps=1600.0,
    tflops={"bf16": 313.0, "si8": 626.0, "f32": 78.0},
    launch_us=5.0,
    compute_units=20,
    replay="walk",
    matrix_units=("cube",),
    shared_memory_bytes=192 << 10,
    parts_apart=True,
)

# One of the two dies of a 910_93 package, which torch_npu shows as a device of its own.
ASCEND_910_93 = Target(
    name="ascend-910_93",
    backend="ascend",
    arch="Ascend910_9391",
    dtypes=ASCEND_910B.dtypes,
    memory_bytes=64 << 30,
    bandwidth_gbps=1600.0,
    tflops={"bf16": 376.0, "si8": 752.0, "f32": 94.0},
    launch_us=5.0,
    compute_units=24,
    replay="walk",
    matrix_units=("cube",),
    shared_memory_bytes=192 << 10,
    parts_apart=True,
)

GRAPHS = "-npugraph"
"""Ends the names of targets whose decode steps are captured: unverified, for who has a device."""


def _captured(eager: Target) -> Target:
    """The same device, with steps of few rows replayed as NPUGraphs. The launch cost is assumed."""
    return structs.replace(
        eager,
        name=eager.name + GRAPHS,
        replay="graph",
        launch_us=2.0,
        graph_segments=("decode", "draft", *HEADS),
    )


TARGETS = (ASCEND_910B, ASCEND_910_93, _captured(ASCEND_910B), _captured(ASCEND_910_93))
