"""The driver of AMD's GPUs over stand-ins of torch and HIP: what it opens, binds and captures.

No AMD GPU was there: the stand-ins refuse what torch and HIP's library refuse.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hip_library import ELF, Launch, built
from hip_torch import MI300X, ROCM, Hip, Properties, install

from lostwax.backends.rocm import driver as rocm_driver
from lostwax.backends.rocm import libhip, presence
from lostwax.backends.rocm.driver import RocmDriver
from lostwax.backends.rocm.target import ROCM_GFX942, ROCM_GFX950
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.sku import sku_of
from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import HostCall, KernelLaunch, View

MI355X = Properties("AMD Instinct MI355X", "gfx950:sramecc+:xnack-", 9, 5, 288 << 30, 256)
VIEW = View(space="arena", name="", dtype="f32", shape=(4,), strides=(1,), offset=0)
KERNEL = KernelLaunch(
    binary="k.hsaco", symbol="known", grid=(3, 2, 1), block=(256, 1, 1),
    params=(Pointer(VIEW), Scalar("i32", -5)), shared_bytes=4096, op="op",
)  # fmt: skip
COMPILED = {
    "k.hsaco": CompiledKernel(
        binary="k.hsaco", symbol="known", digest="", num_warps=4, shared_bytes=0, registers=0
    )
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("hip"))


@pytest.fixture
def hip(library: Path, monkeypatch: pytest.MonkeyPatch) -> Hip:
    found, real = Hip(MI300X), ctypes.CDLL
    install(monkeypatch, found)

    def load(name: str) -> Any:
        if name != "libamdhip64.so":
            return real(name)
        assert found.has_context, "modules are loaded into the context that is current"
        return real(str(library))

    monkeypatch.setattr(libhip.ctypes, "CDLL", load)
    return found


def read(name: str) -> bytes:
    assert name == "k.hsaco"
    return ELF


def opened(kernels: Callable[[str], bytes] = read) -> RocmDriver:
    return RocmDriver(ROCM_GFX942, kernels, COMPILED)


def last_launch(library: Path) -> Launch:
    return Launch.in_dll(ctypes.CDLL(str(library)), "last_launch")


def test_it_is_the_current_gpu_by_its_model_and_its_libraries(
    hip: Hip, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened()
    assert found.device == torch.device("cuda", 0)
    assert sku_of(found.device_name) == "MI300X"
    before = f"AMD Instinct MI300X, torch {torch.__version__}, {ROCM}"
    assert found.fingerprint == before

    def installed(package: str) -> str:
        return {"amd-aiter": "0.1.7.post2"}[package]

    monkeypatch.setattr(rocm_driver, "installed_version", installed)
    assert found.fingerprint == f"{before}, amd-aiter 0.1.7.post2"


@pytest.mark.parametrize(
    ("devices", "rocm", "said"),
    [
        ((MI355X,), ROCM, "is compiled for gfx942, this AMD Instinct MI355X is gfx950: compile"),
        ((Properties("a", "gfx94"),), ROCM, "is compiled for gfx942, this a is gfx94: compile"),
        ((Properties("a", "gfx942a:xnack-"),), ROCM, "this a is gfx942a: compile"),
        ((), ROCM, r"needs an AMD GPU with its driver and a ROCm build of torch; .* none here:"),
        ((MI300X,), None, "sees none here:"),
    ],
)
def test_another_device_is_refused(
    devices: tuple[Properties, ...],
    rocm: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    hip: Hip,
) -> None:
    install(monkeypatch, Hip(*devices), rocm)
    with pytest.raises(DeviceUnavailable, match=said):
        opened()


def test_a_target_takes_its_own_arch(hip: Hip, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Hip(MI355X)
    install(monkeypatch, other)
    monkeypatch.setattr(rocm_driver, "LibHip", object)
    assert RocmDriver(ROCM_GFX950, read, {}).device_name == "AMD Instinct MI355X"


def test_a_library_that_does_not_load_is_the_reason(
    hip: Hip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(libhip.ctypes, "CDLL", missing)
    with pytest.raises(DeviceUnavailable, match=r"\(libamdhip64\.so: cannot open .*: comp"):
        opened()


def test_a_kernel_is_loaded_once_and_launched_on_the_stream_of_the_call(
    hip: Hip, library: Path
) -> None:
    memory, names = torch.zeros(4), list[str]()

    def kernels(name: str) -> bytes:
        names.append(name)
        return read(name)

    found = opened(kernels)
    run, again = (found.bind(KERNEL, lambda view: memory) for _ in range(2))
    assert names == ["k.hsaco"]
    run()
    launch = last_launch(library)
    assert (tuple(launch.grid), tuple(launch.block)) == ((3, 2, 1), (256, 1, 1))
    assert (launch.shared, launch.first, launch.second) == (4096, memory.data_ptr(), -5)
    assert launch.stream == hip.current_stream().cuda_stream == 0x10
    with hip.stream(hip.Stream(found.device)):
        again()
    assert last_launch(library).stream == 0x20


def test_a_kernel_that_the_artifact_does_not_list_is_refused(hip: Hip) -> None:
    found = RocmDriver(ROCM_GFX942, read, {})
    with pytest.raises(ArtifactError, match=r"lists no kernel .k\.hsaco."):
        found.bind(KERNEL, lambda view: torch.zeros(4))


@pytest.mark.parametrize(
    ("function", "consts"),
    [
        ("lostwax.backends.rocm.kernels.aiter_route:require_library", {}),
        ("lostwax.backends.portable.kernels.elementwise:zeros_like", None),
    ],
)
def test_host_calls_are_those_of_its_own_packages(
    function: str, consts: Mapping[str, Any] | None, hip: Hip
) -> None:
    args = () if consts is not None else (VIEW, VIEW)
    opened().bind(HostCall(function=function, args=args), lambda view: torch.zeros(4))
    foreign = HostCall(function="lostwax.backends.runtime.usable_cores:usable_threads", args=())
    with pytest.raises(ArtifactError, match=r"lies outside this target.s kernels"):
        opened().bind(foreign, lambda view: torch.zeros(4))


def test_a_graph_is_recorded_behind_two_runs_aside(hip: Hip) -> None:
    found, seen = opened(), list[tuple[bool, str]]()
    replays = [
        found.capture([lambda: seen.append((hip.records, hip.current_stream().name))])
        for _ in range(2)
    ]
    assert seen == [(False, "side"), (False, "side"), (True, "side")] * 2
    assert hip.log == ["side waits for main", "side has ended"] * 2
    for replay in replays:
        replay()
    found.synchronize()
    assert hip.log[-1] == "cuda:0 has ended"


def test_a_mark_asks_the_event_that_was_recorded(hip: Hip) -> None:
    mark = opened().mark()
    assert not mark.passed
    mark.wait()
    assert mark.passed


def test_buffers_are_zeroed_bytes_of_the_device(hip: Hip) -> None:
    buffer = opened().allocate(1000)
    assert (buffer.dtype, buffer.numel(), bool(buffer.any())) == (torch.uint8, 1000, False)


@pytest.mark.parametrize(
    ("build", "driver", "said"),
    [
        (TorchBuild("9", None, None), True, "torch 9 sees none here (it is built for the CPU only"),
        (TorchBuild("9", "13.0", None), True, "sees none here (it is built CUDA 13.0)"),
        (TorchBuild("9", None, "7.0"), False, "sees none here (there is no "),
        (TorchBuild("9", None, "7.0"), True, ""),
    ],
)
def test_a_look_at_the_machine_says_what_is_lacking(
    build: TorchBuild, driver: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "DRIVER", tmp_path / "kfd")
    if driver:
        (tmp_path / "kfd").touch()
    if not said:
        presence.presence(ROCM_GFX942, build)
        return
    with pytest.raises(DeviceUnavailable) as refused:
        presence.presence(ROCM_GFX942, build)
    assert said in str(refused.value)
