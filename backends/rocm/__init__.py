"""AMD GPUs: own Triton kernels as code objects, torch's operators for the rest. Loads nothing."""

from __future__ import annotations

from lostwax.backends.registry import Backend

BACKEND = Backend(
    name="rocm",
    targets="lostwax.backends.rocm.target:TARGETS",
    lowerings="lostwax.backends.rocm.lowerings:lowerings",
    driver="lostwax.backends.rocm.driver:RocmDriver",
    compiler="lostwax.backends.rocm.compiler:RocmCompiler",
    kernels=("lostwax.backends.rocm.kernels", "lostwax.backends.portable.kernels"),
    presence="lostwax.backends.rocm.presence:presence",
    step="lostwax.backends.gpu_kernels.lowerings.step:StepLaunches",
)
