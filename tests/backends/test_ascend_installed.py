"""What a record of Ascend says of the libraries behind it: what is there, and nothing hoped for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
from ascend_operators import change, forget

import lostwax
from lostwax.backends.ascend import BACKEND, installed
from lostwax.backends.ascend.contract.versions import WRITTEN_FOR
from lostwax.backends.ascend.lowerings import lowerings
from lostwax.backends.ascend.preflight import preflight
from lostwax.backends.ascend.target import ASCEND_910B
from lostwax.backends.ascend.twins.register import register
from lostwax.backends.proof.tool_versions import compiled_with
from lostwax.backends.runtime.error_causes import with_causes
from lostwax.ir.contract.artifact import Manifest

NORM = "lostwax.backends.ascend.kernels.norms:rms_norm"
EXPERTS = "lostwax.backends.ascend.kernels.experts:experts"


@pytest.fixture(autouse=True)
def npu() -> Generator[None]:
    register()
    forget()
    yield
    forget()


def has(patch: pytest.MonkeyPatch, cann: str) -> None:
    """Install torch_npu 2.13.0 beside this CANN, and a driver that does not say what it is."""
    package, utils = ModuleType("torch_npu"), ModuleType("torch_npu.npu.utils")
    package.__spec__ = ModuleSpec("torch_npu", None)
    utils.__dict__["get_cann_version"] = {"CANN": cann, "DRIVER": ""}.__getitem__
    for module in (package, ModuleType("torch_npu.npu"), utils):
        patch.setitem(sys.modules, module.__name__, module)
    patch.setattr(installed, "installed_version", {"torch-npu": "2.13.0+git1"}.get)
    patch.setattr("lostwax.backends.ascend.kernels.operators._entry_points", lambda: None)
    forget()


def give(patch: pytest.MonkeyPatch, **functions: object) -> None:
    """The functions that `torch_npu.npu.utils` has, and no others."""
    utils = ModuleType("torch_npu.npu.utils")
    utils.__dict__.update(functions)
    patch.setitem(sys.modules, utils.__name__, utils)
    forget()


def test_a_machine_that_only_compiles_has_none() -> None:
    assert installed.installed() == {}
    assert installed.libraries_behind([NORM]) == {"torch_npu": "", "CANN": ""}


def test_a_record_has_the_versions_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for cann in ("9.1.0", "8.5.0"):
        has(monkeypatch, cann)
        assert installed.installed() == {"torch_npu": "2.13.0", "CANN": cann}
        assert installed.libraries_behind([NORM]) == {"torch_npu": "2.13.0", "CANN": cann}


class AclError(Exception):
    """Of a library: derived from nothing that anybody could name."""


def raising(error: BaseException) -> Callable[[str], str]:
    def ask(name: str) -> str:
        raise error

    return ask


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("libascendcl.so: cannot open shared object file"),
        OSError("libascendcl.so: cannot open shared object file"),
        KeyError("CANN"),
        AclError("aclInit failed"),
        SystemExit("no CANN: source set_env.sh"),
    ],
)
@pytest.mark.parametrize("where", ["import", "question"])
def test_torch_npu_without_cann_is_there_all_the_same(
    where: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its import asks for CANN's libraries."""
    has(monkeypatch, "9.1.0")
    if where == "import":
        monkeypatch.setattr(installed, "import_module", raising(error))
    else:
        give(monkeypatch, get_cann_version=raising(error))
    assert installed.installed() == {"torch_npu": "2.13.0"}
    assert installed.in_words() == "torch_npu 2.13.0, CANN unknown, driver unknown"
    said = "torch_npu does not say what it stands on: "
    manifest = SimpleNamespace(toolchain=WRITTEN_FOR, target=ASCEND_910B, world_size=1)
    (line,) = (each for each in preflight(cast("Manifest", manifest), ()) if said in each)
    assert line.endswith(with_causes(error))


def test_a_torch_npu_without_that_function_is_there_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has(monkeypatch, "9.1.0")
    give(monkeypatch)
    assert installed.libraries_behind([NORM]) == {"torch_npu": "2.13.0", "CANN": ""}
    assert "has no attribute 'get_cann_version'" in installed.told().why_not


def test_what_was_told_before_it_failed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, "9.1.0")
    give(monkeypatch, get_cann_version={"CANN": "9.1.0"}.__getitem__)
    assert installed.installed() == {"torch_npu": "2.13.0", "CANN": "9.1.0"}
    assert installed.told().why_not == "KeyError: 'DRIVER'"


@pytest.mark.parametrize("said", [None, "", 0, ["9.1.0"]])
def test_what_is_no_version_is_none(said: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the reason is that; the rest is asked all the same."""
    has(monkeypatch, "9.1.0")
    give(monkeypatch, get_cann_version={"CANN": said, "DRIVER": "25.2"}.__getitem__)
    assert installed.installed() == {"torch_npu": "2.13.0", "driver": "25.2"}
    assert installed.told().why_not == f"of CANN it says {said!r}"


def test_a_library_is_asked_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, "9.1.0")
    asked: list[str] = []
    give(monkeypatch, get_cann_version=lambda name: asked.append(name) or "9.1.0")  # pyright: ignore
    for _ in range(3):
        installed.libraries_behind([NORM])
    assert asked == ["CANN", "DRIVER"]


def test_what_torch_computes_in_the_place_of_cann_has_another_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has(monkeypatch, "9.1.0")
    before = installed.libraries_behind([NORM, EXPERTS])
    change(monkeypatch, {"npu_swiglu": None})
    assert installed.libraries_behind([NORM, EXPERTS]) == before | {"npu_swiglu": installed.INSTEAD}
    assert installed.libraries_behind([NORM]) == before, "it calls another"


def test_every_lowering_of_the_target_asks() -> None:
    """What torch's operators do there CANN computes, too."""
    found = lowerings(ASCEND_910B)
    assert {low.installed for low in found} == {installed.libraries_behind}
    assert any(low.name.startswith("portable_") for low in found)


def test_a_certificate_names_no_version_that_nobody_has_seen() -> None:
    toolchain = {**WRITTEN_FOR, "triton": "3.7.1"}
    manifest = cast("Manifest", SimpleNamespace(toolchain=toolchain))
    wanted = {"lostwax": lostwax.__version__, "triton": "3.7.1"}
    assert compiled_with(manifest, BACKEND) == wanted
