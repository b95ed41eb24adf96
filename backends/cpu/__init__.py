"""CPUs: torch's operators, walked launch by launch. Registers, loads nothing."""

from __future__ import annotations

from lostwax.backends.registry import Backend

BACKEND = Backend(
    name="cpu",
    targets="lostwax.backends.cpu.target:TARGETS",
    lowerings="lostwax.backends.cpu.lowerings:lowerings",
    driver="lostwax.backends.cpu.driver:CpuDriver",
    compiler=None,
    kernels=("lostwax.backends.cpu.kernels", "lostwax.backends.portable.kernels"),
    presence="lostwax.backends.cpu.presence:presence",
)
