"""What this machine has of CANN, torch_npu and the NPU's driver. Opens no device.

An artifact's manifest says what its calls were written for, which is no word on any machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lostwax.backends.ascend.contract.versions import WRITTEN_FOR
from lostwax.backends.runtime.error_causes import with_causes
from lostwax.backends.runtime.library_loading import loading
from lostwax.backends.runtime.require_packages import installed_version
from lostwax.ir.contract.one_line import one_line

DRIVER = "driver"
INSTEAD = "torch's operators"
"""What a key has in the place of an operator's version that is not the known one."""


@dataclass(frozen=True, slots=True)
class Told:
    """Versions by name, of what can be told; `why_not` says why the rest cannot, empty where
    nothing is lacking or there is no torch_npu to ask."""

    versions: Mapping[str, str]
    why_not: str = ""


@cache
def told() -> Told:
    """Asked once a process. Raises nothing: to know a version is never worth what needs none."""
    found: dict[str, str] = {}
    why_not = ""
    try:
        if find_spec("torch_npu") is None:
            return Told({})
        if version := installed_version("torch-npu"):
            found["torch_npu"] = version.split("+")[0]
        with loading("torch_npu"):
            ask: Any = import_module("torch_npu.npu.utils").get_cann_version  # untyped
            for package in ("CANN", DRIVER):
                said: object = ask(package.upper())
                if isinstance(said, str) and said:
                    found[package] = said
                else:
                    why_not = why_not or f"of {package} it says {one_line(repr(said))}"
    except Exception as error:  # a library that loads nowhere, or is another one
        why_not = with_causes(error)
    return Told(found, why_not)


def installed() -> dict[str, str]:
    """Versions by name, of what can be told: empty without torch_npu."""
    return dict(told().versions)


def in_words() -> str:
    """Every version as text, `unknown` where it cannot be told."""
    found = installed()
    return ", ".join(f"{each} {found.get(each, 'unknown')}" for each in (*WRITTEN_FOR, DRIVER))


def libraries_behind(functions: Iterable[str]) -> dict[str, str]:
    """Versions for the key of a record of what calls these host functions (`module:name`).

    CANN is no package, and which of its operators are called depends on what is installed: those
    that torch's operators take the place of are named, too. Empty text where nothing can be told,
    as on a machine that only compiles.
    """
    from lostwax.backends.ascend.kernels.operators import operators_of, unfit  # with torch

    found = installed()
    called: set[str] = set()
    for function in functions:
        module, _, name = function.partition(":")
        called.update(operators_of(getattr(import_module(module), name)))
    replaced = {name: INSTEAD for name in sorted(called) if unfit(name)}
    return {package: found.get(package, "") for package in WRITTEN_FOR} | replaced
