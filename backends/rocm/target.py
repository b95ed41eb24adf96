"""Facts of the AMD GPUs that the project compiles for. Knows no driver."""

from __future__ import annotations

from lostwax.ir.contract.program import HEADS
from lostwax.ir.contract.target import Target

# From datasheets, nothing measured: no AMD GPU has run this. The launch cost is the H100's.
# gfx942 (MI300X): 192 GB, 5.3 TB/s, dense bf16 1,307 and fp8 2,615 TFLOP/s, f32 163, 304 units,
# 64 KiB LDS. Its matrix units take the fnuz encoding of fp8; torch converts the other on its vector
# units. Whether its torch has products of bf16 into f32 is not known: wide_products is left out.
ROCM_GFX942 = Target(
    name="rocm-gfx942",
    backend="rocm",
    arch="gfx942",
    dtypes=("f64", "f32", "bf16", "f16", "i64", "i32", "u8", "f8E4M3FN", "f8E4M3FNUZ"),
    memory_bytes=192 << 30,
    bandwidth_gbps=5300.0,
    tflops={"f32": 163.0, "bf16": 1307.0, "f8E4M3FNUZ": 2615.0},
    launch_us=1.06,
    compute_units=304,
    replay="graph",
    matrix_units=("mfma",),
    shared_memory_bytes=65536,
    wave_size=64,
    fp8_encoding="f8E4M3FNUZ",
    graph_segments=("decode", "draft", *HEADS),
    graph_extend_rows=512,
)

# gfx950 (MI355X): 288 GB, 8 TB/s, dense bf16 2,517 and fp8 5,033 TFLOP/s, f32 157, 256 units,
# 160 KiB LDS.
ROCM_GFX950 = Target(
    name="rocm-gfx950",
    backend="rocm",
    arch="gfx950",
    dtypes=("f64", "f32", "bf16", "f16", "i64", "i32", "u8", "f8E4M3FN"),
    memory_bytes=288 << 30,
    bandwidth_gbps=8000.0,
    tflops={"f32": 157.0, "bf16": 2517.0, "f8E4M3FN": 5033.0},
    launch_us=1.06,
    compute_units=256,
    replay="graph",
    matrix_units=("mfma",),
    shared_memory_bytes=163840,
    wave_size=64,
    fp8_encoding="f8E4M3FN",
    graph_segments=("decode", "draft", *HEADS),
    graph_extend_rows=512,
)

TARGETS = (ROCM_GFX942, ROCM_GFX950)
