"""Facts of the CPUs that the project compiles for. Knows no driver."""

from __future__ import annotations

from msgspec.structs import replace

from lostwax.ir.contract.target import Target

# Measured on two Zen 4 cores (torch 2.13, 2026-11): weights of one-row products read at 25 GB/s,
# fp32 products 170 and bf16 400 GFLOP/s at 512 rows, one small torch call 1.5 us from Python.
# Memory: a modest server's; it decides only how much one op may take. What a block shares is here
# what a thread of a native kernel may take beside its operands: a row's logits and no more. Its
# kernels are those for x86-64-v3, or the same for AVX-512 where the processor has it: one artifact
# runs on either, in the last bits not alike.
CPU = Target(
    name="cpu",
    backend="cpu",
    arch="x86-64",
    dtypes=("f64", "f32", "bf16", "f16", "i64", "i32", "u8", "si8", "f8E4M3FN"),
    memory_bytes=64 << 30,
    bandwidth_gbps=25.0,
    tflops={"f32": 0.17, "bf16": 0.4},
    launch_us=1.5,
    compute_units=2,
    replay="walk",
    matrix_units=("avx2",),
    fp8_encoding="f8E4M3FN",
    host_memory=True,
    shared_memory_bytes=16 << 20,
)

# The same kernels on every processor, whatever else it has: the same bits.
CPU_V3 = replace(CPU, name="cpu-x86-64-v3", arch="x86-64-v3")
CPU_V4 = replace(CPU, name="cpu-x86-64-v4", arch="x86-64-v4", matrix_units=("avx512",))

# Described, not measured: emulated, never run on a device. Neoverse N1 has no bf16 product, V1 and
# later do.
CPU_AARCH64 = Target(
    name="cpu-aarch64",
    backend="cpu",
    arch="armv8.2-a",
    dtypes=CPU.dtypes,
    memory_bytes=64 << 30,
    bandwidth_gbps=25.0,
    tflops={"f32": 0.1, "bf16": 0.1},
    launch_us=1.5,
    compute_units=2,
    replay="walk",
    matrix_units=("neon",),
    fp8_encoding="f8E4M3FN",
    host_memory=True,
    shared_memory_bytes=CPU.shared_memory_bytes,
)

TARGETS = (CPU, CPU_V3, CPU_V4, CPU_AARCH64)
