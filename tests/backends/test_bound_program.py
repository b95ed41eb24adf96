"""Programs are bound and captured over a step without rows, never over what memory held."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from lostwax.backends.plan.views import dense
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.bound_program import BoundProgram, Memory
from lostwax.backends.runtime.driver import Resolve, Thunk, no_kernels
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.backends.runtime.step_buffers import InputMemory
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.program import Bucket, Guard, HostCall, Launch, Program, views_of
from lostwax.ir.contract.step import STEP_INPUTS, input_shape, inputs_of
from lostwax.ir.contract.target import Target

BUCKET = Bucket(tokens=3, reqs=2, pages=4)
TARGET = Target(
    name="t", backend="t", arch="", dtypes=("f32",), memory_bytes=1 << 30,
    bandwidth_gbps=1, tflops={"f32": 1}, launch_us=1, compute_units=1,
    replay="graph", graph_segments=("decode",),
)  # fmt: skip


class Recorder(HostDriver):
    """Keeps the device's inputs as they are when a program is captured."""

    inputs = torch.empty(0)
    seen = torch.empty(0)

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        self.seen = self.inputs.clone()
        return super().capture(launches)


class Filling(HostDriver):
    """Fills what a launch is given with ones."""

    packages = ("lostwax.backends.portable.kernels",)

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        tensors = [resolve(view) for view in views_of(launch)]

        def fill() -> None:
            for tensor in tensors:
                tensor.fill_(1)

        return fill


def test_a_program_is_captured_over_padding() -> None:
    offsets, num_bytes = input_offsets("decode", BUCKET)
    none = torch.zeros(0, dtype=torch.uint8)
    driver = Recorder(TARGET, no_kernels, {})
    inputs = InputMemory(torch.full((num_bytes,), 77, dtype=torch.uint8), driver)
    driver.inputs = inputs.device
    memory = Memory(none, inputs, inputs, {}, {}, {}, none)
    program = Program(
        segment="decode", bucket=BUCKET, guard=Guard("chosen"), arena_bytes=0,
        prepare=(), blocks={}, calls=(), outputs={},
    )  # fmt: skip

    BoundProgram(program, memory, driver, captured=True)

    for name in inputs_of("decode"):
        spec = STEP_INPUTS[name]
        view = dense("input", name, spec.dtype, input_shape(name, BUCKET))
        found = tensor_of(driver.seen, view, offsets[name])
        expected = 0 if name == "q_starts" else spec.padding
        assert (found == expected).all(), name


@pytest.mark.parametrize("name", ["hidden", "other", ""])
def test_a_state_is_resolved_by_its_name(name: str) -> None:
    _, num_bytes = input_offsets("decode", BUCKET)
    none = torch.zeros(0, dtype=torch.uint8)
    driver = Filling(TARGET, no_kernels, {})
    inputs = InputMemory(torch.zeros(num_bytes, dtype=torch.uint8), driver)
    states = {n: torch.zeros(4, dtype=torch.uint8) for n in ("hidden", "second")}
    memory = Memory(none, inputs, inputs, {}, {}, states, none)
    view = dense("state", name, "u8", (4,))
    program = Program(
        segment="decode", bucket=BUCKET, guard=Guard("chosen"), arena_bytes=0,
        prepare=(HostCall(function=f"{Filling.packages[0]}.step:fill", args=(view,)),),
        blocks={}, calls=(), outputs={},
    )  # fmt: skip
    if name in states:
        BoundProgram(program, memory, driver, captured=False).replay()
        assert states["hidden"].tolist() == [1] * 4
        assert states["second"].tolist() == [0] * 4
        return
    with pytest.raises(ArtifactError, match=f"a state '{name}', which does not exist"):
        BoundProgram(program, memory, driver, captured=False)
