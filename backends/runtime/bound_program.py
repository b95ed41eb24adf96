"""A program over real memory: every launch bound once, replayed every step."""

from __future__ import annotations

from collections.abc import Iterator

from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import Driver, Resolve, Thunk
from lostwax.backends.runtime.memory import Buffer, Place
from lostwax.backends.runtime.result_copy import ResultCopy
from lostwax.backends.runtime.step_buffers import InputMemory, StepBuffers
from lostwax.ir.contract.check_program import code_of
from lostwax.ir.contract.foreign_file import DAMAGE, reason
from lostwax.ir.contract.program import HEADS, Call, Launch, Program, View

_REMEDY = "recompile the artifact if it is damaged (`lostwax verify ARTIFACT`)"


class LaunchFailed(RuntimeError):
    """What a launch ran over did not suit it, or its device failed; the message names it."""


WeightBuffers = dict[tuple[str, str], Buffer]
"""u8 buffers by (prefix, stored name)."""
PlaneBuffers = dict[tuple[str, int], Buffer]
"""u8 buffers by (plane, layer)."""
StateBuffers = dict[str, Buffer]
"""u8 buffers of what outlives steps, by name."""


class Memory:
    """The buffers that all programs of an artifact share. A step's body and head have inputs
    beside each other. Launches find `zeroed` zero and leave it so, one after the other."""

    def __init__(
        self,
        arena: Buffer,
        body_inputs: InputMemory,
        head_inputs: InputMemory,
        weights: WeightBuffers,
        planes: PlaneBuffers,
        states: StateBuffers,
        zeroed: Buffer,
    ) -> None:
        self.arena = arena
        self.body_inputs = body_inputs
        self.head_inputs = head_inputs
        self.weights = weights
        self.planes = planes
        self.states = states
        self.zeroed = zeroed


class BoundProgram:
    """One program, ready to replay."""

    def __init__(self, program: Program, memory: Memory, driver: Driver, captured: bool) -> None:
        self.program = program
        self.name = program.name
        is_head = program.segment in HEADS
        inputs = memory.head_inputs if is_head else memory.body_inputs
        self.step = StepBuffers(program.segment, program.bucket, inputs)
        self._memory = memory
        self._places: list[tuple[View, Place]] = []
        self._place_of = driver.memory.place
        self._has_run = False
        thunks: list[Thunk] = []
        self._names: list[str] = []
        for call, launches in self._sequence():
            resolve = self._resolver(call)
            for launch in launches:
                self._names.append(f"{launch.op} ({code_of(launch)})")
                thunks.append(self._bound(launch, resolve, driver))
        self.launches = tuple(thunks)
        self._calls = driver.joined(thunks)
        self.outputs = {
            name: self._place_of(memory.arena, view) for name, view in program.outputs.items()
        }
        self.results = ResultCopy(self.outputs, program.bucket.rows, driver)
        # Capture warms up over the inputs: rows of padding touch no page but the trash page.
        self.step.pad()
        self.replay: Thunk = self._captured(driver) if captured else self._walk

    def _bound(self, launch: Launch, resolve: Resolve, driver: Driver) -> Thunk:
        try:
            return driver.bind(launch, resolve)
        except ArtifactError:
            raise
        except (*DAMAGE, RuntimeError) as error:
            raise LaunchFailed(
                f"{self._names[-1]} cannot be launched in program {self.name}:"
                f" {reason(error)}; {_REMEDY}"
            ) from error

    def _captured(self, driver: Driver) -> Thunk:
        """The walk as one graph: what a warm-up writes elsewhere than planned is seen as in a walk,
        and a replay is the driver's own."""
        try:
            return driver.capture([self._walk])
        except LaunchFailed:
            raise
        except RuntimeError as error:  # of the device, which fails behind the launch
            raise LaunchFailed(
                f"program {self.name} cannot be captured: {reason(error)}; {_REMEDY}"
            ) from error

    def _sequence(self) -> Iterator[tuple[Call | None, tuple[Launch, ...]]]:
        """What runs in order, with the call that gives it a layer's memory."""
        yield None, self.program.prepare
        for call in self.program.calls:
            yield call, self.program.blocks[call.block]
        yield None, self.program.finish

    def _walk(self) -> None:
        done = 0
        try:
            for count, call in self._calls:
                call()
                done += count
        except (*DAMAGE, RuntimeError) as error:
            raise LaunchFailed(
                f"{self._names[done]} failed in program {self.name}: {reason(error)}; {_REMEDY}"
            ) from error
        if not self._has_run:
            self._require_unmoved()
            self._has_run = True

    def _require_unmoved(self) -> None:
        """An `out=` of another shape than the result lets torch move it over its neighbours."""
        for view, place in self._places:
            if view.shape[:1] != (-1,) and tuple(place.shape) != view.shape:
                raise LaunchFailed(
                    f"a launch of program {self.name} gives {list(place.shape)} where"
                    f" {list(view.shape)} are planned; recompile the artifact"
                )

    def _resolver(self, call: Call | None) -> Resolve:
        memory, seen = self._memory, dict[View, Place]()

        def resolve(view: View) -> Place:
            if view not in seen:
                seen[view] = self._place(view, call, memory)
                self._places.append((view, seen[view]))
            return seen[view]

        return resolve

    def _place(self, view: View, call: Call | None, memory: Memory) -> Place:
        if view.space == "arena":
            return self._place_of(memory.arena, view)
        if view.space == "input":
            return self._place_of(self.step.memory.device, view, self.step.offsets[view.name])
        if view.space == "state":
            if view.name not in memory.states:
                raise ArtifactError(
                    f"a launch reads a state {view.name!r}, which does not exist; recompile it"
                )
            return self._place_of(memory.states[view.name], view)
        if view.space == "zeroed":
            return self._place_of(memory.zeroed, view)
        if call is None:
            raise ArtifactError(f"a launch outside the calls reads {view.space} memory")
        if view.space == "carry":
            return self._place_of(memory.arena, view, call.carry[view.name])
        if view.space == "weight":
            return self._place_of(memory.weights[call.prefix, view.name], view)
        return self._place_of(memory.planes[view.name, call.layer], view)
