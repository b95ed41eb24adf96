"""`lostwax doctor`: what each target needs to compile and to run here, and what is lacking."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from lostwax.backends.runtime.say import result_json, result_lines
from lostwax.cli.option_types import Json, TargetName
from lostwax.cli.wrapped import wrapped

if TYPE_CHECKING:
    from lostwax.backends.registry import Backend
    from lostwax.ir.contract.target import Target


TORCH = "torch"
WITHOUT_TORCH = "needs torch, which is lacking (above)"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a target needs: what is there, or (`ok` false) what is missing and its fix."""

    name: str
    ok: bool
    text: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """One target: whether it can be compiled for and run on this machine.

    `sku` is the model of device (`runtime/sku.py`), empty where no driver was opened to say it.
    """

    target: str
    arch: str
    compile: Check
    run: Check
    sku: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What can be said of a device that is here, and its SKU once its driver was opened."""

    text: str
    sku: str = ""


Look: TypeAlias = "Callable[[Backend, Target], Seen]"
"""Looks for a target's device; whatever it raises says why there is none."""


class NotOpened(RuntimeError):
    """Nobody has opened the driver yet, so that nothing is known of the device."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine has, and what each target that was asked for can do there."""

    machine: list[Check]
    targets: list[Health]

    def lines(self) -> Iterator[str]:
        """As text."""
        for check in self.machine:
            yield f"{'ok' if check.ok else 'LACKS':<6}{check.name:<9}{check.text}"
        for health in self.targets:
            yield f"{health.target} ({health.arch})"
            for check in (health.compile, health.run):
                yield f"  {'ok' if check.ok else 'lacks':<6}{check.name:<8}{check.text}"


def doctor(
    target: TargetName | None = None,
    /,
    *,
    json_: Json = False,
) -> None:
    """Print what each target can do on this machine and what it lacks, with the fix.

    Exits with 1 if a target that was named cannot be compiled for.

    Parameters
    ----------
    target
        Only this target.
    json_
        Print the findings as JSON on standard output.
    """
    found = examine(target)
    if json_:
        result_json(msgspec.to_builtins(found))
    else:
        for line in found.lines():
            result_lines(wrapped(line))
    if not all(c.ok for c in found.machine) or (target and not found.targets[0].compile.ok):
        raise SystemExit(1)


def examine(target: str | None, look: Look | None = None, *, loads_torch: bool = True) -> Findings:
    """Look at this machine for one target, or for all that are installed.

    `look` looks for the device (default: `device_as_needed`). Where a vendor's package loads with
    torch, that is tried, which may end the process, unless `loads_torch` is false. Raises
    UnknownTarget.
    """
    from lostwax.backends.registry import backends, find_target

    if target is not None:
        chosen = [find_target(target)]
    else:
        chosen = [
            (backend, each)
            for backend in backends().values()
            for each in backend.load(backend.targets)
        ]
    machine = list(_machine(loads_torch=loads_torch))
    if all(check.ok for check in machine if check.name == TORCH):
        health = [_health(backend, each, look or device_as_needed) for backend, each in chosen]
    else:
        health = [_health_without_torch(each) for _, each in chosen]
    return Findings(machine=machine, targets=health)


def _machine(*, loads_torch: bool) -> Iterator[Check]:
    import lostwax
    from lostwax.backends.runtime.torch_build import torch_build
    from lostwax.backends.runtime.torch_extensions import require_torch_loads

    python = platform.python_version()
    new = sys.version_info >= (3, 11)
    fix = "" if new else ": lostwax needs 3.11 or newer, install it"
    yield Check(name="python", ok=new, text=python + fix)

    def torch() -> str:
        found = torch_build()
        if loads_torch:
            require_torch_loads()
        return f"{found.version}, built {found.built}"

    yield _tried(TORCH, torch)
    yield Check(name="lostwax", ok=True, text=lostwax.__version__)


def _health(backend: Backend, target: Target, look: Look) -> Health:
    found: list[str] = []

    def device() -> str:
        seen = look(backend, target)
        found.append(seen.sku)
        return seen.text

    return Health(
        target=target.name,
        arch=target.arch,
        compile=_tried("compile", lambda: _toolchain(backend, target)),
        run=_tried("run", device),
        sku="".join(found),
    )


def _health_without_torch(target: Target) -> Health:
    """Nothing is compiled or run, whatever else is here: another target is no remedy."""
    from lostwax.backends.runtime.driver import DeviceUnavailable
    from lostwax.backends.runtime.require_device import require_device

    def device() -> str:
        try:
            require_device(target)
        except DeviceUnavailable as error:
            raise NotOpened(f"{error.lack}; {WITHOUT_TORCH}") from error
        raise NotOpened(WITHOUT_TORCH)

    lacking = Check(name="compile", ok=False, text=WITHOUT_TORCH)
    run = _tried("run", device)
    return Health(target=target.name, arch=target.arch, compile=lacking, run=run)


def _tried(name: str, attempt: Callable[[], str]) -> Check:
    """What `attempt` found, or why it could not: any library may raise anything."""
    from lostwax.backends.runtime.error_causes import with_causes

    try:
        return Check(name=name, ok=True, text=attempt())
    except Exception as error:
        return Check(name=name, ok=False, text=with_causes(error))


def _toolchain(backend: Backend, target: Target) -> str:
    if backend.compiler is None:
        return "needs no compiler"
    compiler: Any = backend.load(backend.compiler)(target)
    versions: dict[str, str] = compiler.toolchain()
    said = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return said or "needs no compiler"


def device_not_opened(backend: Backend, target: Target) -> Seen:
    """What can be known before the driver opens, which may end the process."""
    from lostwax.backends.runtime.require_device import require_device

    del backend
    require_device(target)
    raise NotOpened("the driver had yet to be opened: where nothing follows, that ended the run")


def device_as_needed(backend: Backend, target: Target) -> Seen:
    """The device, by its driver where a look at the machine does not say enough."""
    from lostwax.backends.runtime.require_device import require_device

    said = require_device(target)
    return device_opened(backend, target) if said is None else Seen(said)


def device_opened(backend: Backend, target: Target) -> Seen:
    """The device as its driver has it."""
    from lostwax.backends.runtime.driver import no_kernels
    from lostwax.backends.runtime.require_device import require_device
    from lostwax.backends.runtime.sku import sku_of

    said = require_device(target)
    driver: Any = backend.load(backend.driver)(target, no_kernels, {})
    seen = said or f"on {driver.device}: {driver.fingerprint}"
    return Seen(seen, sku_of(driver.device_name))
