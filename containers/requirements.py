"""A container's packages, each with the hashes of its files, from `lock/`. Installs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import lostwax
from lostwax.containers.describe import Container

LOCK = Path(lostwax.__file__).parent / "lock"
_ENTRY = re.compile(
    r"^([\w.-]+)==([\w.+]+)(?:; ([^\\\n]+?))?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.M
)
_HASH = re.compile(r"sha256:([0-9a-f]{64})")


class BadLock(ValueError):
    """A lock file is missing or cannot be read; the message names it."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One package: its version, where it is installed (a marker, or empty), its files' sha256."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def __str__(self) -> str:
        marker = f"; {self.marker}" if self.marker else ""
        hashes = (f"    --hash=sha256:{each}" for each in self.hashes)
        return " \\\n".join([f"{self.name}=={self.version}{marker}", *hashes])


def locked(name: str, folder: Path = LOCK) -> dict[str, Pin]:
    """The pins of `lock/<name>.txt` by name. BadLock where a line of it is no part of one."""
    path = folder / f"{name}.txt"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadLock(
            f"{path}: {error.strerror}; install lostwax anew, or take a whole source tree"
        ) from error
    body = "".join(line for line in text.splitlines(True) if not line.startswith("#"))
    if left := _ENTRY.sub("", body).split():
        raise BadLock(
            f"{path}: {left[0]!r} is no part of a pin with hashes; make it anew: ./dev lock"
        )
    return {
        found[1]: Pin(found[1], found[2], found[3] or "", tuple(_HASH.findall(found[4])))
        for found in _ENTRY.finditer(body)
    }


def requirements(container: Container, folder: Path = LOCK) -> tuple[Pin, ...]:
    """What is installed in the container, by name, without lostwax and a torch that is given.

    Raises BadLock.
    """
    found = locked("core", folder)
    for name in container.locks:
        found |= locked(name, folder)
    of_cpu = locked("torch-cpu", folder)["torch"].hashes
    torch = found.pop("torch")
    if container.torch == "cpu":
        found["torch"] = replace(torch, hashes=of_cpu)
    elif container.torch == "lock":
        others = tuple(each for each in torch.hashes if each not in of_cpu)
        found["torch"] = replace(torch, hashes=others)
    return _without(found, [*BUILD_ONLY, *container.leave_out])


BUILD_ONLY = ("hatchling", "pathspec", "pluggy", "trove-classifiers")
"""Of core.txt, what only builds lostwax."""


def _without(found: Mapping[str, Pin], names: Iterable[str]) -> tuple[Pin, ...]:
    """BadLock where one that is to be left out is not there: then the list is out of date."""
    kept = dict(found)
    for name in names:
        if kept.pop(name, None) is None:
            raise BadLock(f"{name} is to be left out, and no lock has it; take it off the list")
    return tuple(kept[name] for name in sorted(kept))


def as_text(pins: Iterable[Pin], what: str) -> str:
    """A file for `pip install --require-hashes -r`."""
    head = f"# {what}\n# Written by `lostwax container` from lock/: change nothing here.\n"
    return head + "".join(f"{pin}\n" for pin in pins)
