"""Weights go straight to their places: beside them the host holds no more than pieces."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import save_file

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime import torch_weights
from lostwax.backends.runtime.driver import Mark, ReadKernel, no_kernels
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.load_weights import load_weights
from lostwax.backends.runtime.staging import Staging
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, scale_shape
from lostwax.ir.contract.target import Target
from lostwax.ir.contract.weights import (
    Dequantise,
    Select,
    Source,
    Stack,
    Step,
    StoredTensor,
    StoredWeight,
    WeightPart,
    WeightPlan,
)

MIB = 1 << 20


@dataclass(frozen=True)
class Waiting:
    """A mark that has not passed before it is waited for."""

    wait: Callable[[], None]
    passed: bool = False


class Device(HostDriver):
    """A device whose memory is not the host's: it counts what staging takes, and the waits."""

    staged = 0
    waits = 0

    @property
    def device(self) -> torch.device:
        """Not the host."""
        return torch.device("meta")

    def staging(self, num_bytes: int) -> torch.Tensor:
        self.staged += num_bytes
        return super().staging(num_bytes)

    def mark(self) -> Mark:
        def wait() -> None:
            self.waits += 1

        return Waiting(wait)


def _plan(experts: int, shape: tuple[int, int], steps: tuple[Step, ...], dtype: str) -> WeightPlan:
    part = WeightPart(name="w", dtype="f8E4M3FN", shape=shape, scale=FP8_BLOCKS, count=experts)
    stored = StoredWeight(
        name="w", dtype=dtype, shape=(experts, *shape), parts=(part,), steps=steps
    )
    sources = tuple(
        Source(
            "model.safetensors",
            f"w{e}",
            "f8E4M3FN",
            shape,
            StoredTensor("model.safetensors", f"s{e}", "f32", scale_shape(FP8_BLOCKS, shape)),
        )
        for e in range(experts)
    )
    return WeightPlan(stored={"g": (stored,)}, groups={"": "g"}, sources={"w": sources})


def _write(folder: Path, experts: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for e in range(experts):
        codes = torch.randint(0, 120, shape, generator=generator, dtype=torch.uint8)
        tensors[f"w{e}"] = codes.view(torch.float8_e4m3fn)
        tensors[f"s{e}"] = torch.full(scale_shape(FP8_BLOCKS, shape), 2.0 ** (e - 3))
    save_file(tensors, folder / "model.safetensors")


KEPT: tuple[Step, ...] = (Select("values"), Stack())
WIDE: tuple[Step, ...] = (Dequantise("bf16"), Stack())

HELD_WHILE_LOADING = """
import sys, threading, time
from pathlib import Path
import msgspec, torch
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.load_weights import load_weights
from lostwax.ir.contract.weights import WeightPlan

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("RssAnon")) * 1024

torch.set_num_threads(1)
plan = msgspec.json.decode(sys.argv[1], type=WeightPlan)
before, most, done = held(), 0, threading.Event()

def watch():
    global most
    while not done.is_set():
        most = max(most, held())
        time.sleep(0.001)

thread = threading.Thread(target=watch)
thread.start()
buffers = load_weights(plan, Path(sys.argv[2]), CpuDriver(CPU, no_kernels, {}))
done.set()
thread.join()
print(max(most, held()) - before - sum(b.nbytes for b in buffers.values()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory counts")
@pytest.mark.parametrize(("steps", "dtype", "most"), [(KEPT, "f8E4M3FN", 8), (WIDE, "bf16", 64)])
def test_a_load_holds_little_beside_the_weights(
    tmp_path: Path, steps: tuple[Step, ...], dtype: str, most: int
) -> None:
    """Of 6 experts of 12 MiB each: stacked they are 72, one of them is dequantised through 144."""
    shape = (2048, 6144)
    _write(tmp_path, 6, shape)
    plan = msgspec.json.encode(_plan(6, shape, steps, dtype)).decode()
    found = subprocess.run(
        [sys.executable, "-c", HELD_WHILE_LOADING, plan, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(found.stdout) < most * MIB


def test_on_a_device_two_buffers_are_all_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces larger than a buffer travel in several, and arrive as they are."""
    shape, size = (256, 384), 64 << 10
    _write(tmp_path, 3, shape)
    monkeypatch.setattr(torch_weights, "Staging", partial(Staging, num_bytes=size))
    for steps, dtype in ((KEPT, "f8E4M3FN"), (WIDE, "bf16")):
        device, plan = Device(CPU, no_kernels, {}), _plan(3, shape, steps, dtype)
        made = load_weights(plan, tmp_path, device)
        want = load_weights(plan, tmp_path, CpuDriver(CPU, no_kernels, {}))
        assert made["", "w"].numpy().tobytes() == want["", "w"].tobytes()
        assert device.staged == 2 * size
        sent = want["", "w"].nbytes / size
        assert device.waits >= sent, "each buffer was waited for before it was filled again"


class Late(Device):
    """Its copies happen when their mark is waited for."""

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        super().__init__(target, kernels, compiled)
        self.pending: list[Callable[[], torch.Tensor]] = []

    def mark(self) -> Mark:
        mine, self.pending = self.pending, []

        def wait() -> None:
            for copy in mine:
                copy()
            mine.clear()

        return Waiting(wait)


def test_a_buffer_is_not_filled_again_before_its_bytes_have_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Late(CPU, no_kernels, {})
    staging = Staging(device, 64)
    copied = torch.Tensor.copy_

    def late(self: torch.Tensor, src: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        if not non_blocking:
            return copied(self, src)
        device.pending.append(partial(copied, self, src))
        return self

    monkeypatch.setattr(torch.Tensor, "copy_", late)
    place, piece = torch.zeros(40, 9), torch.arange(360.0).reshape(40, 9)
    staging.write(place.t(), piece.t())  # strided on both sides
    assert not torch.equal(place, piece), "copies are under way"
    staging.finish()
    assert torch.equal(place, piece)
