"""Programs are bound and captured over a step without rows, never over what memory held."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
import torch

from lostwax.backends.plan.views import dense
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.bound_program import BoundProgram, LaunchFailed, Memory
from lostwax.backends.runtime.driver import Resolve, Thunk, no_kernels
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.backends.runtime.step_buffers import InputMemory
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.backends.runtime.torch_memory import as_tensor
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
        tensors = [as_tensor(resolve(view)) for view in views_of(launch)]

        def fill() -> None:
            for tensor in tensors:
                tensor.fill_(1)

        return fill


class Graphs(HostDriver):
    """Records a program as a GPU does: it warms up twice, and replays what no launch sees."""

    replays = 0

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        for _ in range(2):
            super().capture(launches)()

        def replay() -> None:
            self.replays += 1

        return replay


class Widening(Graphs):
    """Gives twice the columns that are planned."""

    runs = 0

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        (out,) = (as_tensor(resolve(view)) for view in views_of(launch))
        given = torch.ones(out.shape[0], self.columns(out.shape[1]))

        def add() -> None:
            self.runs += 1
            with warnings.catch_warnings(action="ignore"):  # torch's, of an output that it resizes
                torch.add(given, given, out=out)

        return add

    def columns(self, planned: int) -> int:
        return 2 * planned


class Suiting(Widening):
    """Gives what is planned."""

    def columns(self, planned: int) -> int:
        return planned


class Failing(Graphs):
    """Has launches that fail, as on a device that refuses them."""

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        def fail() -> None:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE (1)")

        return fail


class Refusing(Graphs):
    """Refuses a launch before it is made."""

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        raise RuntimeError("CUDA_ERROR_INVALID_VALUE (1)")


class Lost(Graphs):
    """Fails behind the launches, as a device does that is waited for."""

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        return lambda: None

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        super().capture(launches)
        raise RuntimeError("an illegal memory access was encountered")


OUT = dense("arena", "", "f32", (4, 8))


def bound(driver: HostDriver, *, captured: bool) -> BoundProgram:
    """A program of one launch, which writes 4 rows of 8 numbers in front of others."""
    _, num_bytes = input_offsets("decode", BUCKET)
    none = torch.zeros(0, dtype=torch.uint8)
    inputs = InputMemory(torch.zeros(num_bytes, dtype=torch.uint8), driver)
    arena = torch.zeros(2 * OUT.num_bytes, dtype=torch.uint8)
    program = Program(
        segment="decode", bucket=BUCKET, guard=Guard("chosen"), arena_bytes=len(arena),
        prepare=(HostCall(function="norms:rms_norm", args=(OUT,), op="portable_norm"),),
        blocks={}, calls=(), outputs={},
    )  # fmt: skip
    return BoundProgram(program, Memory(arena, inputs, inputs, {}, {}, {}, none), driver, captured)


@pytest.mark.parametrize("captured", [False, True])
def test_a_launch_that_writes_elsewhere_than_planned_is_refused(captured: bool) -> None:
    message = r"decode-t3-b2-p4-chosen gives \[4, 16\] where \[4, 8\] are planned"
    with pytest.raises(LaunchFailed, match=message):
        bound(Widening(TARGET, no_kernels, {}), captured=captured).replay()


FAILURES: dict[type[HostDriver], str] = {
    Failing: r"portable_norm \(norms:rms_norm\) failed in program decode-t3-b2-p4-chosen: CUDA_",
    Refusing: r"portable_norm \(norms:rms_norm\) cannot be launched in program decode-t3-b2-p4-ch",
    Lost: r"program decode-t3-b2-p4-chosen cannot be captured: an illegal memory access",
}


@pytest.mark.parametrize("driver", FAILURES, ids=lambda each: each.__name__)
def test_what_fails_at_capture_names_program_and_remedy(driver: type[HostDriver]) -> None:
    with pytest.raises(LaunchFailed, match=FAILURES[driver]) as error:
        bound(driver(TARGET, no_kernels, {}), captured=True)
    assert "recompile the artifact" in str(error.value)


def test_a_replay_runs_nothing_but_the_graph() -> None:
    driver = Suiting(TARGET, no_kernels, {})
    program = bound(driver, captured=True)
    runs = driver.runs
    program.replay()
    assert (driver.replays, driver.runs) == (1, runs)


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
