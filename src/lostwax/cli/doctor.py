"""`lostwax doctor`: what each target needs to compile and to run here, and what is lacking."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from lostwax.backends.runtime.say import result_json, result_lines
from lostwax.cli.option_types import Json, TargetName
from lostwax.cli.wrapped import wrapped

if TYPE_CHECKING:
    from lostwax.backends.registry import Backend
    from lostwax.ir.contract.target import Target


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a target needs: what is there, or (`ok` false) what is missing and its fix."""

    name: str
    ok: bool
    text: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """One target: whether it can be compiled for and run on this machine."""

    target: str
    arch: str
    compile: Check
    run: Check


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


def examine(target: str | None) -> Findings:
    """Look at this machine for one target, or for all that are installed."""
    from lostwax.backends.registry import backends, find_target

    if target is not None:
        chosen = [find_target(target)]
    else:
        chosen = [
            (backend, each)
            for backend in backends().values()
            for each in backend.load(backend.targets)
        ]
    health = [_health(backend, each) for backend, each in chosen]
    return Findings(machine=list(_machine()), targets=health)


def _machine() -> Iterator[Check]:
    import lostwax
    from lostwax.backends.runtime.torch_build import NoTorch, torch_build

    python = platform.python_version()
    new = sys.version_info >= (3, 11)
    fix = "" if new else ": lostwax needs 3.11 or newer, install it"
    yield Check(name="python", ok=new, text=python + fix)
    try:
        torch = torch_build()
        yield Check(name="torch", ok=True, text=f"{torch.version}, built {torch.built}")
    except NoTorch as error:
        yield Check(name="torch", ok=False, text=str(error))
    yield Check(name="lostwax", ok=True, text=lostwax.__version__)


def _health(backend: Backend, target: Target) -> Health:
    return Health(
        target=target.name,
        arch=target.arch,
        compile=_tried("compile", lambda: _toolchain(backend, target)),
        run=_tried("run", lambda: _device(backend, target)),
    )


def _tried(name: str, attempt: Callable[[], str]) -> Check:
    """What `attempt` found, or the sentence with which it was refused."""
    from lostwax.backends.kernel_compiler import KernelCompileError
    from lostwax.backends.runtime.driver import DeviceUnavailable

    try:
        return Check(name=name, ok=True, text=attempt())
    except (KernelCompileError, DeviceUnavailable, ImportError, OSError) as error:
        return Check(name=name, ok=False, text=str(error))


def _toolchain(backend: Backend, target: Target) -> str:
    if backend.compiler is None:
        return "needs no compiler"
    compiler: Any = backend.load(backend.compiler)(target)
    versions: dict[str, str] = compiler.toolchain()
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _device(backend: Backend, target: Target) -> str:
    from lostwax.backends.runtime.driver import no_kernels
    from lostwax.backends.runtime.require_device import require_device

    if (said := require_device(target)) is not None:
        return said
    driver: Any = backend.load(backend.driver)(target, no_kernels, {})
    return f"on {driver.device}: {driver.fingerprint}"
