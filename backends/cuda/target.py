"""Facts of the NVIDIA GPUs that the project compiles for. Knows no driver."""

from __future__ import annotations

from lostwax.ir.contract.program import HEADS
from lostwax.ir.contract.target import Target

# Rates and launch cost as measured on one H100 80GB HBM3 (torch 2.11, 2026-11-23): streaming read
# 3.07 TB/s, bf16 770 and fp8 1,290 TFLOP/s, an empty kernel in a graph 1.06 us. f32: the vector
# units' datasheet rate (67 TFLOP/s), tensor cores unused. Shared memory: 227 KiB a block may take.
# Memory: the H100's, the smallest of the kind.
# Libraries: torch allocates 32 MiB of cuBLAS workspace on Hopper; seen on that card as what a
# load allocates beyond the rest of the plan (32.5 MiB, torch 2.11, 2026-11-24).
CUDA_SM90A = Target(
    name="cuda-sm90a",
    backend="cuda",
    arch="sm_90a",
    dtypes=("f64", "f32", "bf16", "f16", "i64", "i32", "u8", "f8E4M3FN"),
    memory_bytes=80 << 30,
    bandwidth_gbps=3070.0,
    tflops={"f32": 67.0, "bf16": 770.0, "f8E4M3FN": 1290.0},
    launch_us=1.06,
    compute_units=132,
    replay="graph",
    matrix_units=("wgmma",),
    shared_memory_bytes=232448,
    wave_size=32,
    fp8_encoding="f8E4M3FN",
    graph_segments=("decode", "draft", *HEADS),
    graph_extend_rows=512,
    cluster_blocks=16,
    tensor_maps=True,
    programmatic_launch=True,
    cooperative_launch=True,
    library_bytes=32 << 20,
    wide_products=True,
)

# B200, from datasheets, nothing measured: 180 GB, 8 TB/s, dense bf16 2,250 and fp8 4,500 TFLOP/s,
# f32 75, 148 units, 227 KiB of shared memory a block. The launch cost is the H100's.
CUDA_SM100A = Target(
    name="cuda-sm100a",
    backend="cuda",
    arch="sm_100a",
    dtypes=CUDA_SM90A.dtypes,
    memory_bytes=180 << 30,
    bandwidth_gbps=8000.0,
    tflops={"f32": 75.0, "bf16": 2250.0, "f8E4M3FN": 4500.0},
    launch_us=1.06,
    compute_units=148,
    replay="graph",
    matrix_units=("tcgen05",),
    shared_memory_bytes=232448,
    wave_size=32,
    fp8_encoding="f8E4M3FN",
    graph_segments=("decode", "draft", *HEADS),
    graph_extend_rows=512,
    cluster_blocks=16,
    tensor_maps=True,
    programmatic_launch=True,
    cooperative_launch=True,
    wide_products=True,
)

TARGETS = (CUDA_SM90A, CUDA_SM100A)
