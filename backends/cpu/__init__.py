"""CPUs: native kernels as lists of launches, torch's operators for the rest. Loads nothing."""

from __future__ import annotations

from lostwax.backends.registry import Backend

BACKEND = Backend(
    name="cpu",
    targets="lostwax.backends.cpu.target:TARGETS",
    lowerings="lostwax.backends.cpu.lowerings:lowerings",
    driver="lostwax.backends.cpu.driver:CpuDriver",
    compiler="lostwax.backends.cpu.compiler:CpuCompiler",
    kernels=("lostwax.backends.cpu.kernels", "lostwax.backends.portable.kernels"),
    presence="lostwax.backends.cpu.presence:presence",
    step="lostwax.backends.cpu.lowerings.native_step:native_step",
)
