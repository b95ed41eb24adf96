"""What is asked of HIP's library has its prototypes: a stand-in compiled against HIP's own header.

The library itself and an AMD GPU were never there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hip_library import ELF, Launch, built

from lostwax.backends.rocm import libhip
from lostwax.backends.rocm.libhip import HipError, LibHip
from lostwax.backends.runtime.kernel_parameters import over_memory
from lostwax.ir.contract.parameter import Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch, View


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("hip"))


@pytest.fixture
def library(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> LibHip:
    real = ctypes.CDLL
    asked: list[str] = []

    def load(name: str) -> Any:
        asked.append(name)
        return real(str(stand_in))

    made: Callable[[str], Any] = load
    monkeypatch.setattr(libhip.ctypes, "CDLL", made)
    found = LibHip()
    assert asked == ["libamdhip64.so"]
    return found


def launch_of(**changes: Any) -> KernelLaunch:
    view = View(space="arena", name="", dtype="f32", shape=(4,), strides=(1,), offset=0)
    launch = KernelLaunch(
        binary="k.hsaco", symbol="known", grid=(3, 2, 1), block=(256, 1, 1),
        params=(Pointer(view), Scalar("i32", -5)), shared_bytes=65536, op="op",
    )  # fmt: skip
    return msgspec.structs.replace(launch, **changes)


def test_a_library_that_is_not_there_is_said_with_its_names_and_who_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    made: Callable[[str], Any] = missing
    monkeypatch.setattr(libhip.ctypes, "CDLL", made)
    with pytest.raises(HipError, match=r"not found as libamdhip64\.so, .*\.so\.6 .*hip-runtime"):
        LibHip()


def test_a_library_with_the_number_of_its_rocm_is_found(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ctypes.CDLL

    def numbered(name: str) -> Any:
        if name != libhip.NAMES[-1]:
            raise OSError(f"{name}: cannot open shared object file")
        return real(str(stand_in))

    made: Callable[[str], Any] = numbered
    monkeypatch.setattr(libhip.ctypes, "CDLL", made)
    assert LibHip().load(ELF, "known")


def test_a_launch_arrives_as_it_was_asked_for(library: LibHip, stand_in: Path) -> None:
    memory = torch.zeros(4)
    kernel = library.load(ELF, "known")
    launch = launch_of()
    parameters, _ = over_memory(launch.params, lambda view: memory, library.encode_tensor_map)
    library.launch(library.pack(kernel, launch, parameters), 0x1234567890)
    last = Launch.in_dll(ctypes.CDLL(str(stand_in)), "last_launch")
    assert (tuple(last.grid), tuple(last.block)) == ((3, 2, 1), (256, 1, 1))
    assert (last.shared, last.stream) == (65536, 0x1234567890)
    assert (last.first, last.second) == (memory.data_ptr(), -5)


def test_what_the_library_refuses_is_named(library: LibHip) -> None:
    with pytest.raises(HipError, match=r"hipModuleLoadData failed: hipErrorInvalidImage"):
        library.load(b"no code object", "known")
    with pytest.raises(HipError, match=r"hipModuleGetFunction\(other\) failed: hipErrorNotFound"):
        library.load(ELF, "other")
    kernel, launch = library.load(ELF, "known"), launch_of(block=(2048, 1, 1))
    memory = torch.zeros(4)
    parameters, _ = over_memory(launch.params, lambda view: memory, library.encode_tensor_map)
    with pytest.raises(HipError, match="hipModuleLaunchKernel failed: hipErrorInvalidValue"):
        library.launch(library.pack(kernel, launch, parameters), 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cluster": (2, 1, 1)}, "one of clusters of workgroups"),
        ({"programmatic": True}, "programmatic"),
        ({"cooperative": True}, "cooperative"),
    ],
)
def test_what_the_target_lacks_is_refused_before_it_is_launched(
    library: LibHip, change: dict[str, Any], said: str
) -> None:
    launch, memory = launch_of(**change), torch.zeros(4)
    parameters, _ = over_memory(launch.params, lambda view: memory, library.encode_tensor_map)
    with pytest.raises(HipError, match=f"op: its launch is {said}, which this target lacks"):
        library.pack(library.load(ELF, "known"), launch, parameters)


def test_a_tensor_map_is_refused(library: LibHip) -> None:
    view = View(space="arena", name="", dtype="f32", shape=(4, 32), strides=(32, 1), offset=0)
    asked = TensorMap(view=view, box=(4, 32))
    with pytest.raises(HipError, match="takes a tensor map, which this target lacks; recompile"):
        library.encode_tensor_map(asked, 0, (4, 32))
