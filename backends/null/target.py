"""A device without time: what planning and the engine cost by themselves."""

from __future__ import annotations

from lostwax.ir.contract.target import Target

NULL = Target(
    name="null",
    backend="null",
    arch="none",
    dtypes=("f64", "f32", "bf16", "f16", "i64", "i32", "u8", "f8E4M3FN", "f8E4M3FNUZ"),
    memory_bytes=80 << 30,
    bandwidth_gbps=1000.0,
    tflops={"f32": 100.0, "bf16": 100.0},
    launch_us=1.0,
    compute_units=1,
    replay="none",
    host_memory=True,
)

TARGETS = (NULL,)
