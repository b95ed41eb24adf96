"""A target of graphs captures its programs as they are loaded, and the plan counts them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from native_kernels import torch_alone
from small_fixtures import Compiled

from lostwax.backends import cpu
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan import memory_plan
from lostwax.backends.runtime import load as loading
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import Thunk
from lostwax.ir.contract.check_program import ProgramCheck
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.check_weights import weight_sizes
from lostwax.ir.contract.program import HEADS, HostCall, Launch, Program

T = TypeVar("T")

EXTEND_ROWS, READING = 32, 16


@pytest.fixture(scope="module", autouse=True)
def of_torch() -> Generator[None]:
    """Of torch's operators, which may be captured or not."""
    with torch_alone():
        yield


def _with(launches: Sequence[Launch], *, but_last: bool) -> tuple[Launch, ...]:
    """Host calls that may be captured; all but the last of them, or all."""
    most = len(launches) - but_last
    return tuple(
        msgspec.structs.replace(each, capturable=i < most) if isinstance(each, HostCall) else each
        for i, each in enumerate(launches)
    )


GRAPHS = msgspec.structs.replace(
    CPU,
    name="graphs",
    backend="graphs",
    replay="graph",
    graph_segments=("decode", *HEADS),
    graph_extend_rows=EXTEND_ROWS,
)
TARGETS = (GRAPHS,)
BACKEND = replace(cpu.BACKEND, name=GRAPHS.backend, targets=f"{__name__}:TARGETS")


class GraphReader(ArtifactReader):
    """The artifact as a target of graphs would have it; steps of READING rows read on the host."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.manifest = msgspec.structs.replace(self.manifest, target=GRAPHS)

    def _decode(self, content: bytes, kind: type[T], name: str) -> T:
        found = super()._decode(content, kind, name)
        if not isinstance(found, Program):
            return found
        reads = found.segment == "extend" and found.bucket.tokens == READING
        blocks = {name: _with(each, but_last=reads) for name, each in found.blocks.items()}
        prepare, finish = (_with(each, but_last=False) for each in (found.prepare, found.finish))
        return msgspec.structs.replace(found, blocks=blocks, prepare=prepare, finish=finish)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[Thunk]:
    """What was captured."""
    found: list[Thunk] = []

    def capture(_: CpuDriver, launches: Sequence[Thunk]) -> Thunk:
        found.extend(launches)
        return lambda: None

    monkeypatch.setattr(CpuDriver, "capture", capture)
    for module in (loading, memory_plan):
        monkeypatch.setattr(module, "ArtifactReader", GraphReader)
    return found


def test_what_may_be_captured_is_captured_at_load(
    torch_artifact: Compiled, captured: list[Thunk]
) -> None:
    runtime = loading.load(
        torch_artifact.artifact, checkpoint=torch_artifact.checkpoint, extra_backends=(BACKEND,)
    )
    refs = runtime.manifest.programs
    extends = {ref.bucket.tokens for ref in refs if ref.segment == "extend"}
    assert {READING, EXTEND_ROWS} < extends, "and there are larger ones"
    expected = [
        ref
        for ref in refs
        if ref.segment in ("decode", *HEADS)
        or (ref.segment == "extend" and READING < ref.bucket.tokens <= EXTEND_ROWS)
    ]
    assert len(captured) == len(expected)
    assert memory_plan.plan_memory(torch_artifact.artifact).graphs == len(expected)
    for ref in refs:
        runtime.bound(ref)
    assert len(captured) == len(expected), "whoever is captured was captured at load"


def test_what_a_target_captures_at_any_size_has_launches_that_may_be(
    torch_artifact: Compiled,
) -> None:
    reader = GraphReader(torch_artifact.artifact)
    check = ProgramCheck(reader.manifest, weight_sizes(reader.weight_plan()))
    for ref in reader.manifest.programs:
        program = reader.program(ref.file)
        check(program, ref)
        if ref.segment == "extend":
            continue
        blocks = {name: _with(each, but_last=True) for name, each in program.blocks.items()}
        with pytest.raises(Inconsistent, match=f"target graphs captures each {ref.segment} prog"):
            check(msgspec.structs.replace(program, blocks=blocks), ref)
