"""The CPU and null drivers: what they refuse, how they lay out memory, what null answers."""

from __future__ import annotations

import msgspec
import pytest
import torch

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.kernels.spans import Span, spans_of, tiles
from lostwax.backends.cpu.target import CPU
from lostwax.backends.null.driver import NullDriver
from lostwax.backends.null.target import NULL
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import DeviceUnavailable, no_kernels
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.program import HostCall, KernelLaunch, View

PICK = "lostwax.backends.portable.kernels.sample:pick"


def _view(name: str, dtype: str, shape: tuple[int, ...]) -> View:
    strides = tuple(int(torch.Size(shape[i + 1 :]).numel()) for i in range(len(shape)))
    return View(space="arena", name=name, dtype=dtype, shape=shape, strides=strides)


def test_the_cpu_driver_refuses_another_architecture() -> None:
    foreign = msgspec.structs.replace(CPU, name="cpu-other", arch="riscv64")
    with pytest.raises(
        DeviceUnavailable, match="compile for a target that runs here: --target cpu"
    ):
        CpuDriver(foreign, no_kernels, {})


def test_cpu_buffers_are_zeroed_and_aligned() -> None:
    buffer = CpuDriver(CPU, no_kernels, {}).allocate(1000)
    assert buffer.numel() == 1000
    assert buffer.data_ptr() % 256 == 0
    assert not buffer.any()


def test_the_cpu_driver_refuses_binaries_that_the_artifact_does_not_list() -> None:
    launch = KernelLaunch(
        binary="a", symbol="k", grid=(1, 1, 1), block=(1, 1, 1), params=(), op="x"
    )
    with pytest.raises(ArtifactError, match="lists no kernel 'a'"):
        CpuDriver(CPU, no_kernels, {}).bind(launch, lambda view: torch.empty(0))


def test_null_computes_nothing_but_counted_ids() -> None:
    driver = NullDriver(NULL, no_kernels, {})
    buffers: dict[str, torch.Tensor] = {}

    def resolve(view: View) -> torch.Tensor:
        return buffers.setdefault(view.name, tensor_of(driver.allocate(view.num_bytes), view))

    names = ("temperature", "seeds", "counters", "ids", "logprobs")
    dtypes = ("f32", "i32", "i32", "i32", "f32")
    rows = tuple(_view(n, d, (2,)) for n, d in zip(names, dtypes, strict=True))
    pick = HostCall(function=PICK, args=(_view("logits", "f32", (2, 5)), *rows))
    other = HostCall(function=PICK.replace("pick", "score"), args=(rows[0],))
    replay = driver.capture([driver.bind(other, resolve), driver.bind(pick, resolve)])
    buffers["counters"].copy_(torch.tensor([3, 4]))
    buffers["seeds"].copy_(torch.tensor([0, 7]))
    replay()
    assert buffers["ids"].tolist() == [3, 1]
    assert buffers["logprobs"].tolist() == [0.0, 0.0]


def test_spans_leave_padding_out_and_tiles_bound_what_is_read() -> None:
    q_starts = torch.tensor([0, 3, 4, 4, 4], dtype=torch.int32)
    positions = torch.tensor([10, 11, 12, 0, -1, -1], dtype=torch.int32)
    spans = spans_of(q_starts, positions)
    assert spans == [Span(0, 0, 3, 10), Span(1, 3, 4, 0)]
    assert [(t.start, t.stop, t.length) for t in tiles(spans[0], 2)] == [(0, 2, 12), (2, 3, 13)]
