"""Targets by name, through the entry points `lostwax.targets`. Loads nothing before it is asked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from lostwax.backends.runtime.library_loading import loading
from lostwax.ir.contract.target import Target


class UnknownTarget(ValueError):
    """No installed target has this name; the message lists those that exist."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One target folder, by `module:attribute` strings so that serving loads no lowering.

    `targets`: tuple of Target. `lowerings`: function (Target) -> tuple of Lowering. `driver`:
    class of the runtime's Driver. `compiler`: function (Target) -> KernelCompiler, or None where
    every lowering is a host call. `kernels`: packages that host calls of programs may name.
    `executes` is False for a driver that computes nothing, which then proves nothing either.
    `presence`: function (Target, TorchBuild) -> str or None that imports no torch; it raises
    DeviceUnavailable where the device can not be here, says in words where programs run, or gives
    None where only the driver can tell. `step`: function (StepLayout, page_tokens, Target, build)
    -> what makes the launches around the layers where the device keeps the sequences' state
    (`gpu_kernels/lowerings/step.py`), or None where the host does, as for a backend without `step`.
    `twins`: function () -> object to keep, which gives the process CPU twins of operators that only
    the device has, so that host calls can be interpreted; None where the CPU has all of them.
    `activations`: function (Target) -> ActivationChoice where weights are FP8;
    None where activations stay as they are unless somebody asks.
    `written_for`: function () -> versions by package that the host functions were written for,
    which manifests keep. `preflight`: function (Manifest, host functions) -> lines to say of what
    is installed instead, once the driver is there; it raises MissingPackage where that cannot run.
    `collectives`: torch.distributed's backend, by kind of device where there are several.
    """

    name: str
    targets: str
    lowerings: str
    driver: str
    compiler: str | None
    kernels: tuple[str, ...]
    executes: bool = True
    presence: str | None = None
    step: str | None = None
    activations: str | None = None
    twins: str | None = None
    written_for: str | None = None
    preflight: str | None = None
    collectives: str = "gloo"

    def load(self, reference: str) -> Any:  # a module attribute: its type is the reader's to know
        """Import `module:attribute`. Raises LibraryEnds, and whatever its libraries do."""
        module, attribute = reference.split(":")
        with loading(module):
            return getattr(import_module(module), attribute)


def backends(extra: Iterable[Backend] = ()) -> dict[str, Backend]:
    """Every installed backend by name, and those in `extra`, which need no entry point."""
    found: dict[str, Backend] = {b.name: b for b in extra}
    for point in sorted(entry_points(group="lostwax.targets"), key=lambda p: p.name):
        if point.name in found:
            raise ValueError(f"two installed packages provide the target folder {point.name!r}")
        with loading(point.value):
            found[point.name] = point.load()
    return found


def find_target(name: str, extra: Iterable[Backend] = ()) -> tuple[Backend, Target]:
    """The backend and description of a target name; UnknownTarget lists the names."""
    known: dict[str, tuple[Backend, Target]] = {}
    for backend in backends(extra).values():
        loaded: tuple[Target, ...] = backend.load(backend.targets)
        known.update({t.name: (backend, t) for t in loaded})
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownTarget(f"unknown target {name!r}.{hint} Known: {', '.join(sorted(known))}")
