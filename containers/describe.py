"""What a container needs of its host, as data: `targets/*.toml`, a file a family of devices.

Differences between targets stand there; no code asks for a container's name. Renders nothing.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

import msgspec

from lostwax.backends.registry import UnknownTarget, find_target
from lostwax.backends.runtime.sku import sku_of
from lostwax.ir.contract.target import Target

TARGETS = Path(__file__).with_name("targets")


class UnknownContainer(ValueError):
    """No container has this name; the message lists those that exist."""


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a host's devices get into a container.

    `gpus`: by the NVIDIA Container Toolkit; else by `nodes`, paths below /dev, which are for those
    in the group of each of `groups`. `mounts` are the host's files that a driver's library reads.
    `which` says whose the nodes are, and how to give others. `resource` is what a Kubernetes device
    plugin calls one device, empty where none is needed.
    """

    gpus: bool = False
    nodes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    which: str = ""
    resource: str = ""


class _Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    target: str
    needs: str
    device_name: str = ""
    base: str = ""


class _Family(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    containers: dict[str, _Named]
    torch: Literal["cpu", "lock", "given"]
    checked: str
    base: str = ""
    locks: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    compilers: str = ""
    scripts: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    device: Device = Device()


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One container: what is put into it, and what its host must have.

    `target` is the lostwax target whose artifacts it serves, `sku` the model of device, whose
    tuning records count: that of `device_name`, as the device's driver names it. `base` is an image
    that fits, by a tag, which decides nothing. `torch` is which build goes in: the lock's for the
    CPU (`cpu`), the lock's other one (`lock`), or a wheel that the user names (`given`). `locks`
    are files of `lock/` beside `core.txt`, `leave_out` packages of theirs that stay out.
    `compilers` says which compilers stay in the image and why, empty where it has none. `scripts`
    are sourced before the server starts, `environment` is what the device's own tools read. `needs`
    and `checked` are sentences for the reader.
    """

    name: str
    target: str
    needs: str
    sku: str
    base: str
    torch: Literal["cpu", "lock", "given"]
    checked: str
    locks: tuple[str, ...]
    leave_out: tuple[str, ...]
    compilers: str
    scripts: tuple[str, ...]
    environment: dict[str, str]
    device: Device


def containers() -> dict[str, Container]:
    """Every container by name, in the order of their files."""
    found: dict[str, Container] = {}
    for path in sorted(TARGETS.glob("*.toml")):
        family = msgspec.toml.decode(path.read_bytes(), type=_Family)
        for name, named in family.containers.items():
            found[name] = Container(
                name=name,
                target=named.target,
                needs=named.needs,
                sku=sku_of(named.device_name),
                base=named.base or family.base,
                torch=family.torch,
                checked=family.checked.strip(),
                locks=family.locks,
                leave_out=family.leave_out,
                compilers=family.compilers,
                scripts=family.scripts,
                environment=family.environment,
                device=family.device,
            )
    return found


def served_by(container: Container) -> tuple[str, ...]:
    """The targets whose artifacts run in it: its own, then others of the same device."""
    try:
        backend, own = find_target(container.target)
    except UnknownTarget:
        return (container.target,)
    targets: tuple[Target, ...] = backend.load(backend.targets)
    alike = (each.name for each in targets if each.arch == own.arch and each != own)
    return (own.name, *alike)


def container_named(name: str) -> Container:
    """The container of that name. UnknownContainer lists the names."""
    known = containers()
    if name in known:
        return known[name]
    of_target = [each.name for each in known.values() if name in served_by(each)]
    close = of_target or difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {' or '.join(repr(each) for each in close)}?" if close else ""
    raise UnknownContainer(f"unknown container {name!r}.{hint} Known: {', '.join(known)}")
