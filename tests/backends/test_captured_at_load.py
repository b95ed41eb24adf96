"""A target of graphs captures its programs as they are loaded, and the plan counts them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from small_fixtures import Compiled

from lostwax.backends.plan import memory_plan
from lostwax.backends.runtime import load as loading
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import Thunk
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.ir.contract.program import HEADS, HostCall, Launch, Program

EXTEND_ROWS, READING = 32, 16


def _with(launches: Sequence[Launch], *, but_last: bool) -> tuple[Launch, ...]:
    """Host calls that may be captured; all but the last of them, or all."""
    most = len(launches) - but_last
    return tuple(
        msgspec.structs.replace(each, capturable=i < most) if isinstance(each, HostCall) else each
        for i, each in enumerate(launches)
    )


class GraphReader(ArtifactReader):
    """The artifact as a target of graphs would have it; steps of READING rows read on the host."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        target = msgspec.structs.replace(
            self.manifest.target,
            replay="graph",
            graph_segments=("decode", *HEADS),
            graph_extend_rows=EXTEND_ROWS,
        )
        self.manifest = msgspec.structs.replace(self.manifest, target=target)

    def program(self, name: str) -> Program:
        found = super().program(name)
        reads = found.segment == "extend" and found.bucket.tokens == READING
        blocks = {name: _with(each, but_last=reads) for name, each in found.blocks.items()}
        prepare, finish = (_with(each, but_last=False) for each in (found.prepare, found.finish))
        return msgspec.structs.replace(found, blocks=blocks, prepare=prepare, finish=finish)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many launches each capture had."""
    found: list[int] = []

    def capture(_: HostDriver, launches: Sequence[Thunk]) -> Thunk:
        found.append(len(launches))
        return lambda: None

    monkeypatch.setattr(HostDriver, "capture", capture)
    for module in (loading, memory_plan):
        monkeypatch.setattr(module, "ArtifactReader", GraphReader)
    return found


def test_what_may_be_captured_is_captured_at_load(
    small_artifact: Compiled, captured: list[int]
) -> None:
    runtime = loading.load(small_artifact.artifact, checkpoint=small_artifact.checkpoint)
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
    assert memory_plan.plan_memory(small_artifact.artifact).graphs == len(expected)
    for ref in refs:
        runtime.bound(ref)
    assert len(captured) == len(expected), "whoever is captured was captured at load"
