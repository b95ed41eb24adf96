"""What a graph replays is the whole program, and capturing leaves no trace in a device's step.

The driver records as a GPU does: launches that are made while it captures, which run at replay
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from small import PROMPT, plan
from small_fixtures import Compiled

from lostwax.backends import cpu
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime import load as loading
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.backends.runtime.load import Runtime
from lostwax.backends.runtime.load_weights import load_weights
from lostwax.backends.runtime.ranks import Ranks
from lostwax.ir.contract.program import HEADS, HostCall, Launch, Program
from lostwax.ir.contract.step_layout import LAYOUT, PLAN, StepLayout

T = TypeVar("T")

GRAPHS = msgspec.structs.replace(
    CPU, name="graphs", backend="graphs", replay="graph", graph_segments=("decode", *HEADS),
    graph_extend_rows=32,
)  # fmt: skip
TARGETS = (GRAPHS,)
COUNT = "device:count_a_turn"
"""Stands for what a device's kernels do behind each head."""


class Graphs(CpuDriver):
    """Warms up, then keeps launches in the order in which they are made."""

    replays = 0
    turns = 0
    _kept: list[Thunk] | None = None

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        bound = self._bound(launch, resolve)

        def run() -> None:
            if self._kept is None:
                bound()
            else:
                self._kept.append(bound)

        return run

    def _bound(self, launch: Launch, resolve: Resolve) -> Thunk:
        if not isinstance(launch, HostCall) or launch.function != COUNT:
            return super().bind(launch, resolve)
        (view,) = launch.args
        assert view is not None
        turn = self.memory.array_at(resolve(view))

        def count() -> None:
            self.turns += 1
            turn[...] += 1

        return count

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        for launch in launches:
            launch()
        self._kept = kept = list[Thunk]()
        for launch in launches:
            launch()
        self._kept = None

        def replay() -> None:
            Graphs.replays += 1
            for each in kept:
                each()

        return replay


BACKEND = replace(
    cpu.BACKEND,
    name=GRAPHS.backend,
    targets=f"{__name__}:TARGETS",
    driver=f"{__name__}:Graphs",
)


class GraphReader(ArtifactReader):
    """The artifact as a target of graphs would have it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.manifest = msgspec.structs.replace(self.manifest, target=GRAPHS)

    def _decode(self, content: bytes, kind: type[T], name: str) -> T:
        found = super()._decode(content, kind, name)
        if not isinstance(found, Program):
            return found
        return _capturable(found)


class OnDevice(GraphReader):
    """The same, whose steps the device derives; heads count its turns."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._plain = GraphReader(folder)
        self.manifest = msgspec.structs.replace(self.manifest, step_layout=LAYOUT)

    def program(self, name: str) -> Program:
        found = self._plain.program(name)
        if found.segment not in HEADS:
            return found
        turn = StepLayout.of(self.manifest.limits).array("turn")
        counted = HostCall(function=COUNT, args=(turn,), capturable=True)
        return msgspec.structs.replace(found, finish=(*found.finish, counted))


def _capturable(program: Program) -> Program:
    def all_may(launches: Sequence[Launch]) -> tuple[Launch, ...]:
        return tuple(
            msgspec.structs.replace(x, capturable=True) if isinstance(x, HostCall) else x
            for x in launches
        )

    blocks = {name: all_may(each) for name, each in program.blocks.items()}
    prepare, finish = all_may(program.prepare), all_may(program.finish)
    return msgspec.structs.replace(program, blocks=blocks, prepare=prepare, finish=finish)


def played(runtime: Runtime) -> list[Any]:
    """Results of a prompt in one small step and in a large one, and of tokens behind it."""
    steps = [
        plan(PROMPT, 0, head="score"),
        plan(PROMPT[:3], len(PROMPT), head="score"),
        plan(PROMPT[:1], len(PROMPT) + 3, head="score"),
        plan(PROMPT[1:2], len(PROMPT) + 4),
        plan([*PROMPT, *PROMPT], 0, head="score"),
    ]
    return [msgspec.to_builtins(runtime.run(step)) for step in steps]


def test_a_graph_replays_what_a_walk_runs(
    small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = loading.load(small_artifact.artifact, checkpoint=small_artifact.checkpoint)
    want = played(walked)
    monkeypatch.setattr(loading, "ArtifactReader", GraphReader)
    monkeypatch.setattr(Graphs, "replays", 0)
    replayed = loading.load(
        small_artifact.artifact, checkpoint=small_artifact.checkpoint, extra_backends=(BACKEND,)
    )
    assert played(replayed) == want
    bodies, heads = 4, 5  # the last step's body is too large
    assert Graphs.replays == bodies + heads


def test_turns_that_capturing_counted_are_none_of_a_step(small_artifact: Compiled) -> None:
    """Else the device would read another place's plan than the host wrote."""
    reader = OnDevice(small_artifact.artifact)
    compiled = {kernel.binary: kernel for kernel in reader.manifest.kernels}
    driver = Graphs(GRAPHS, reader.kernel, compiled)
    ranks = Ranks.join(1)
    weights = load_weights(reader.weight_plan(), small_artifact.checkpoint, driver, ranks.rank)
    runtime = Runtime(reader, driver, weights, 9, ranks)
    assert driver.turns, "heads are captured at load"
    turn = StepLayout.of(reader.manifest.limits).array("turn")
    assert driver.memory.place(runtime.memory.states[PLAN], turn).array().tolist() == [0]
