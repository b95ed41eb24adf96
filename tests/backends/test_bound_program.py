"""Programs are bound and captured over a step without rows, never over what memory held."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lostwax.backends.plan.views import dense
from lostwax.backends.runtime.bound_program import BoundProgram, Memory
from lostwax.backends.runtime.driver import Thunk, no_kernels
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.program import Bucket, Guard, Program
from lostwax.ir.contract.step import STEP_INPUTS, input_shape
from lostwax.ir.contract.target import Target

BUCKET = Bucket(tokens=3, reqs=2, pages=4, rows=2)
TARGET = Target(
    name="t", backend="t", arch="", dtypes=("f32",), memory_bytes=1 << 30,
    bandwidth_gbps=1, tflops={"f32": 1}, launch_us=1, compute_units=1,
    replay="graph", graph_entries=("decode",),
)  # fmt: skip


class Recorder(HostDriver):
    """Keeps the device's inputs as they are when a program is captured."""

    inputs = torch.empty(0)
    seen = torch.empty(0)

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        self.seen = self.inputs.clone()
        return super().capture(launches)


def test_a_program_is_captured_over_padding() -> None:
    offsets, num_bytes = input_offsets(BUCKET)
    none = torch.zeros(0, dtype=torch.uint8)
    inputs, host = (torch.full((num_bytes,), 77, dtype=torch.uint8) for _ in range(2))
    driver = Recorder(TARGET, no_kernels, {})
    driver.inputs = inputs
    memory = Memory(none, inputs, host, {}, {}, {})
    program = Program(
        entry="decode", bucket=BUCKET, guard=Guard("chosen"), arena_bytes=0,
        prepare=(), blocks={}, calls=(), outputs={},
    )  # fmt: skip

    BoundProgram(program, memory, driver, captured=True)

    for name, spec in STEP_INPUTS.items():
        view = dense("input", name, spec.dtype, input_shape(name, BUCKET))
        found = tensor_of(driver.seen, view, offsets[name])
        expected = 0 if name == "q_starts" else spec.padding
        assert (found == expected).all(), name
