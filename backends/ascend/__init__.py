"""Ascend NPUs: CANN's operators through torch_npu, called one by one. Registers, loads nothing."""

from __future__ import annotations

from lostwax.backends.registry import Backend

BACKEND = Backend(
    name="ascend",
    targets="lostwax.backends.ascend.target:TARGETS",
    lowerings="lostwax.backends.ascend.lowerings:lowerings",
    driver="lostwax.backends.ascend.driver:AscendDriver",
    compiler=None,
    kernels=("lostwax.backends.ascend.kernels", "lostwax.backends.portable.kernels"),
    presence="lostwax.backends.ascend.presence:presence",
    twins="lostwax.backends.ascend.twins.register:register",
    written_for="lostwax.backends.ascend.contract.versions:written_for",
    preflight="lostwax.backends.ascend.preflight:preflight",
    collectives="cpu:gloo,npu:hccl",
)
