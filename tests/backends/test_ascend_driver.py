"""The Ascend driver over a stand-in of torch.npu: its device, its fingerprint, how graphs are made.

The stand-in has what torch_npu 2.13.0 has of these names, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
import torch.distributed as dist
from ascend_operators import change, forget

from lostwax.backends.ascend import installed
from lostwax.backends.ascend.driver import AscendDriver
from lostwax.backends.ascend.target import ASCEND_910B
from lostwax.backends.ascend.twins.register import register
from lostwax.backends.runtime.driver import DeviceUnavailable, no_kernels
from lostwax.backends.runtime.stream_device import StreamDevice
from lostwax.backends.runtime.torch_build import TorchBuild
from lostwax.cli.doctor import examine
from lostwax.ir.contract.target import Target


class Stream:
    """Streams, of which one is current."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        self.log.append(f"{self.name} has ended")


class Graph:
    """Records while it is open; replays only then."""

    def __init__(self) -> None:
        self.recorded = False

    def replay(self) -> None:
        assert self.recorded


class Event:
    """Known to have passed once somebody waited."""

    def __init__(self) -> None:
        self.state = ""

    def record(self) -> None:
        self.state = "recorded"

    def query(self) -> bool:
        assert self.state
        return self.state == "passed"

    def synchronize(self) -> None:
        assert self.state
        self.state = "passed"


class Npu(ModuleType):
    """torch.npu of a host with eight devices."""

    NPUGraph = Graph
    Event = Event

    def __init__(self, name: str = "Ascend910B3", count: int = 8) -> None:
        super().__init__("torch.npu")
        self._model, self._count, self._current = name, count, 0
        self.log: list[str] = []
        self.capturing = False

    def is_available(self) -> bool:
        return self._count > 0

    def get_device_name(self, device: torch.device | None = None) -> str:
        return self._model

    def current_device(self) -> int:
        return self._current

    def set_device(self, number: int) -> None:
        assert number < self._count
        self._current = number

    def synchronize(self, device: torch.device) -> None:
        self.log.append(f"{device} has ended")

    def Stream(self, device: torch.device) -> Stream:
        return Stream(self.log, "side")

    def current_stream(self) -> Stream:
        return Stream(self.log, "main")

    @contextmanager
    def stream(self, stream: Stream) -> Generator[None]:
        self.log.append(f"on {stream.name}")
        yield

    def graph_pool_handle(self) -> int:
        return 7

    @contextmanager
    def graph(self, graph: Graph, *, pool: int, stream: Stream) -> Generator[None]:
        assert pool == 7
        self.capturing = True
        yield
        self.capturing, graph.recorded = False, True


@pytest.fixture
def npu(monkeypatch: pytest.MonkeyPatch) -> Generator[Npu]:
    register()
    forget()
    found = Npu()
    install(monkeypatch, found)
    yield found
    forget()


def install(patch: pytest.MonkeyPatch, npu: Npu) -> None:
    package, below, utils = ModuleType("torch_npu"), ModuleType("npu"), ModuleType("utils")
    package.__spec__ = ModuleSpec("torch_npu", None)
    utils.__dict__["get_cann_version"] = {"CANN": "9.1.0", "DRIVER": "25.5.0"}.__getitem__
    patch.setattr(installed, "installed_version", {"torch-npu": "2.13.0+git1"}.get)
    named = {"torch_npu": package, "torch_npu.npu": below, "torch_npu.npu.utils": utils}
    for name, module in named.items():
        patch.setitem(sys.modules, name, module)
    # which functions CANN's libraries have is kept for the process, and there are none
    patch.setattr("lostwax.backends.ascend.kernels.operators._entry_points", lambda: None)
    patch.setattr(torch, "npu", npu, raising=False)
    # torch knows the name once torch_npu has given it to a device kind of its own
    patch.setattr(torch, "device", "{}:{}".format)


def driver() -> AscendDriver:
    return AscendDriver(ASCEND_910B, no_kernels, {})


def test_the_fingerprint_has_versions_and_what_torch_stands_in_for(
    npu: Npu, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = driver().fingerprint
    versions = "torch_npu 2.13.0, CANN 9.1.0, driver 25.5.0"
    assert before == f"Ascend910B3, torch {torch.__version__}, {versions}"
    change(monkeypatch, {"npu_swiglu": None})
    assert driver().fingerprint == f"{before}, without npu_swiglu"
    versions = {"CANN": "", "DRIVER": ""}.__getitem__
    monkeypatch.setattr(sys.modules["torch_npu.npu.utils"], "get_cann_version", versions)
    forget()
    assert "CANN unknown, driver unknown, without npu_swiglu" in driver().fingerprint


def test_a_doctor_says_what_the_device_s_libraries_are(
    npu: Npu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report has the NPU's driver from there alone."""

    def here(target: Target, torch: TorchBuild) -> None:
        """The driver says the rest."""

    monkeypatch.setattr("lostwax.backends.ascend.presence.presence", here)
    (health,) = examine("ascend-910b").targets
    assert health.run.ok
    assert driver().fingerprint in health.run.text
    assert "driver 25.5.0" in health.run.text


def test_a_device_of_another_family_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Npu("Ascend910_9391"))
    with pytest.raises(DeviceUnavailable, match="this device is Ascend910_9391: compile for"):
        driver()
    install(monkeypatch, Npu(count=0))
    with pytest.raises(DeviceUnavailable, match="needs an Ascend NPU"):
        driver()


def test_a_rank_has_the_device_of_its_number(npu: Npu, monkeypatch: pytest.MonkeyPatch) -> None:
    assert driver().device == "npu:0"
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 3)
    assert driver().device == "npu:3"


def test_a_graph_is_recorded_behind_two_runs_aside(npu: Npu) -> None:
    device = StreamDevice(torch.device("npu", 0), npu, npu.NPUGraph)
    seen: list[bool] = []
    replay = device.capture([lambda: seen.append(npu.capturing)])
    assert seen == [False, False, True]
    assert npu.log == ["side waits for main", "on side", "side has ended"]
    replay()


def test_a_mark_asks_the_event_that_was_recorded(npu: Npu) -> None:
    mark = driver().mark()
    assert not mark.passed
    mark.wait()
    assert mark.passed
