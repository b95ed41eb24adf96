"""Which code stands behind each of CANN's operators here: CANN's own, or torch's in its place.

Decided once an operator, by what is installed: so that a program runs beside another torch_npu or
CANN where only some of what it calls has changed, and is refused where nothing can take its place.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

from lostwax.backends.ascend.contract.entry_points import ENTRY_POINTS, LIBRARIES
from lostwax.backends.ascend.contract.snapshot import differences, read_snapshot
from lostwax.backends.ascend.contract.versions import WRITTEN_FOR
from lostwax.backends.ascend.kernels.composed import COMPOSED
from lostwax.backends.runtime.require_packages import MissingPackage

_CALLS = "cann_operators"


def calls(*operators: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks a host function with CANN's operators that it calls."""

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        setattr(function, _CALLS, operators)
        return function

    return mark


def operators_of(function: Callable[..., None]) -> tuple[str, ...]:
    """The operators that a host function was marked with; none where it was not."""
    return getattr(function, _CALLS, ())


@cache
def operator(name: str) -> Callable[..., Any]:
    """`torch.ops.npu.<name>`, or what torch's operators make of it where that is not the known one.

    Raises MissingPackage, with what differs, where nothing can take its place.
    """
    wrong = unfit(name)
    if not wrong:
        return getattr(torch.ops.npu, name)
    if name not in COMPOSED:
        wanted = " with ".join(f"{package} {v}" for package, v in WRITTEN_FOR.items() if v)
        raise MissingPackage(
            f"{wrong}, which lostwax was not written for, and torch has nothing in place of {name}:"
            f" install {wanted}, or compile with --lowering OP=portable_… for the op that calls it"
        )
    return COMPOSED[name]


def replaced(names: Iterable[str]) -> dict[str, str]:
    """Of these operators those that torch's stand in for, with what is wrong with CANN's."""
    return {
        name: unfit(name) for name in sorted(set(names)) if operator(name) is COMPOSED.get(name)
    }


@cache
def unfit(name: str) -> str:
    """What keeps the installed operator from being called, empty where nothing does."""
    kept = read_snapshot().schemas
    changed = differences({name: kept[name]}, {name: installed_schema(name)})
    if changed:
        return "; ".join(changed)
    found = _entry_points()
    if found is not None and not any(map(found, ENTRY_POINTS[name])):
        return f"{name}: CANN has no {' nor '.join(ENTRY_POINTS[name])}"
    return ""


def installed_schema(name: str) -> str | None:
    """The schema of `torch.ops.npu.<name>` in this process, None where it is not registered."""
    schemas: list[Any] = cast("Any", torch)._C._jit_get_schemas_for_operator(f"npu::{name}")
    plain = [str(schema) for schema in schemas if not schema.overload_name]
    return plain[0] if plain else None


@cache
def _entry_points() -> Callable[[str], bool] | None:
    """Whether CANN has a function, by its name; None where no torch_npu would ask it.

    torch_npu finds these as an operator is called for the first time, which is in a step.
    """
    if find_spec("torch_npu") is None:
        return None
    home = Path(os.environ.get("ASCEND_HOME_PATH", "/")) / "lib64"  # as CANN's set_env.sh sets it
    names = [name for name in LIBRARIES if "*" not in name]
    split = (str(file) for name in LIBRARIES if "*" in name for file in sorted(home.glob(name)))
    libraries = [found for name in (*names, *split) if (found := _opened(name)) is not None]
    return lambda symbol: any(hasattr(library, symbol) for library in libraries)


def _opened(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
