"""Whether this machine's processor is the target's. Imports no torch."""

from __future__ import annotations

import platform

from lostwax.backends.cpu.library import libraries
from lostwax.backends.cpu.processor import MACHINES, is_of, processor_features
from lostwax.backends.cpu.target import TARGETS
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.ir.contract.target import Target


def presence(target: Target, torch: TorchBuild) -> str:
    """Where it runs; DeviceUnavailable where it cannot. Any build of torch will do."""
    del torch
    require_processor(target)
    return "on cpu"


def require_processor(target: Target) -> None:
    """Raise DeviceUnavailable on another processor, or on one that lacks what the target's native
    kernels are built for."""
    if not is_of(target.arch):
        wanted = next((m for a, m in MACHINES.items() if target.arch.startswith(a)), ())
        raise DeviceUnavailable(
            f"target {target.name} needs {' or '.join(wanted) or target.arch}, this machine is"
            f" {platform.machine().lower()}",
            _remedy(),
        )
    if missing := _lacking(target):
        raise DeviceUnavailable(
            f"target {target.name} is for {target.arch}, and this processor lacks"
            f" {', '.join(missing)}",
            _remedy(),
        )


def _lacking(target: Target) -> list[str]:
    library, here = libraries().get(target.arch), processor_features()
    return [name for name in library.features if name not in here] if library else []


def _remedy() -> str:
    fit = [each.name for each in TARGETS if is_of(each.arch) and not _lacking(each)]
    if not fit:
        return "none of lostwax's targets for CPUs runs here"
    return f"compile for a target that runs here: --target {' or '.join(fit)}"
