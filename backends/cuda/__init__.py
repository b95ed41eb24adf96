"""NVIDIA GPUs: own kernels as cubins, torch's CUDA operators for the rest. Loads nothing."""

from __future__ import annotations

from lostwax.backends.registry import Backend

BACKEND = Backend(
    name="cuda",
    targets="lostwax.backends.cuda.target:TARGETS",
    lowerings="lostwax.backends.cuda.lowerings:lowerings",
    driver="lostwax.backends.cuda.driver:CudaDriver",
    compiler="lostwax.backends.cuda.compiler:CudaCompiler",
    kernels=("lostwax.backends.cuda.kernels", "lostwax.backends.portable.kernels"),
    presence="lostwax.backends.cuda.presence:presence",
    step="lostwax.backends.gpu_kernels.lowerings.step:StepLaunches",
    activations="lostwax.backends.cuda.activations:activations",
)
