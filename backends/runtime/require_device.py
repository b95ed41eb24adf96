"""Refuses a target whose device can not be here, without torch: before a compile or an engine."""

from __future__ import annotations

from lostwax.backends.registry import backends
from lostwax.backends.runtime.torch_build import torch_build
from lostwax.ir.contract.target import Target


def require_device(target: Target) -> str | None:
    """What the target's `presence` says (see `Backend`); None where only the driver can tell.

    Raises DeviceUnavailable with the remedy, NoTorch.
    """
    backend = backends().get(target.backend)
    if backend is None or backend.presence is None:
        return None
    said: str | None = backend.load(backend.presence)(target, torch_build())
    return said
