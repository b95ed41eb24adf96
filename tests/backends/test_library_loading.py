"""A library that would end the process as it is imported is an error, wherever it is imported."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lostwax.backends import kernel_worker, registry
from lostwax.backends.ascend import driver
from lostwax.backends.ascend.target import ASCEND_910B
from lostwax.backends.gpu_kernels import triton_compiler
from lostwax.backends.runtime.library_loading import LibraryEnds

REASON = "no device: source set_env.sh"
REFERENCE = "ends_at_once:thing"


class Point:
    """As an entry point of an installed target."""

    name, value = "ends", REFERENCE

    def load(self) -> object:
        return import_module("ends_at_once")


def any_module(_: str) -> object:
    return import_module("ends_at_once")


def points(group: str) -> list[Point]:
    return [Point()] if group == "lostwax.targets" else []


LOADS: dict[str, Callable[[], Any]] = {
    "a target's code": lambda: registry.find_target("cpu")[0].load(REFERENCE),
    "a compiler": lambda: kernel_worker._load(REFERENCE),  # pyright: ignore[reportPrivateUsage]
    "Triton": triton_compiler._import_triton,  # pyright: ignore[reportPrivateUsage]
    "torch_npu": lambda: driver._open_device(ASCEND_910B),  # pyright: ignore[reportPrivateUsage]
    "a target": registry.backends,
}


@pytest.mark.parametrize("name", LOADS)
def test_a_library_that_ends_the_process_is_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends_at_once.py").write_text(f"raise SystemExit({REASON!r})")
    monkeypatch.syspath_prepend(str(tmp_path))
    if name == "a target":
        monkeypatch.setattr(registry, "entry_points", points)
    for module in (triton_compiler, driver):
        monkeypatch.setattr(module, "import_module", any_module)
    with pytest.raises(LibraryEnds, match=f"ends the process: SystemExit: {REASON}"):
        LOADS[name]()
