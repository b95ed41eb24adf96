"""What a lowering says that it takes reaches its launch, the plan and the plan's total, whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from native_kernels import NATIVE
from small_fixtures import CompileSmall

from lostwax.backends.cpu.contract.sizes import ROOM_BYTES
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.plan.memory_plan import MemoryPlan, plan_memory
from lostwax.backends.plan.memory_warnings import MANY_GRAPHS, memory_warnings
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.program import HostCall
from lostwax.ir.contract.target import Target

LOWERINGS = "lostwax.backends.cpu.lowerings.lowerings"


def test_the_total_is_the_sum_of_all_parts() -> None:
    parts = {
        "weights": 1 << 40,
        "arena": 1 << 30,
        "state": 1 << 25,
        "inputs": 1 << 20,
        "zeroed": 1 << 17,
        "host_calls": 1 << 15,
        "scratch": 1 << 13,
        "graph_bytes": 1 << 10,
        "libraries": 1 << 5,
    }
    rest: dict[str, Any] = {
        "target": "t", "ranks": 2, "page_tokens": 64, "graphs": 3, "device": 1 << 40
    }  # fmt: skip
    plan = MemoryPlan(**parts, **rest, planes={"latent": 3, "index": 1}, num_pages=2)
    assert (plan.page_bytes, plan.cache) == (4, 8)
    assert plan.total == sum(parts.values()) + 8
    for name, value in parts.items():
        assert replace(plan, **{name: 0}).total == plan.total - value, name
    assert replace(plan, num_pages=0).total == plan.total - 8
    fields = set(MemoryPlan.__dataclass_fields__)
    assert fields == {*parts, *rest, "planes", "num_pages"}, "a new part belongs into the total"
    assert plan.beyond == plan.total - (1 << 40)
    assert replace(plan, device=plan.total).beyond == replace(plan, device=1 << 50).beyond == 0


def test_a_compile_is_warned_of_what_fits_on_no_device_and_of_many_graphs() -> None:
    plan = MemoryPlan(
        target="cuda-x", ranks=1, weights=80 << 30, arena=0, state=0, inputs=0, zeroed=0,
        host_calls=0, scratch=0, planes={}, num_pages=0, page_tokens=64, graphs=MANY_GRAPHS,
        graph_bytes=0, libraries=0, device=80 << 30,
    )  # fmt: skip
    assert list(memory_warnings(plan)) == []
    (line,) = memory_warnings(replace(plan, arena=1 << 20))
    assert line.startswith(
        "81921.0 MiB a rank are more than the 81920.0 MiB that the smallest device of cuda-x has;"
    )
    (line,) = memory_warnings(replace(plan, weights=0, graphs=MANY_GRAPHS + 1, graph_bytes=3 << 19))
    assert line.startswith("257 programs will be captured as graphs, about 1.5 MiB,")


def test_a_launch_carries_what_its_lowering_says(
    compile_small: CompileSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lostwax.backends.cpu.lowerings import lowerings

    said: dict[str, int] = {}

    def odd(lowering: Lowering) -> Lowering:
        most = said.setdefault(lowering.name, 100_001 + 2 * len(said))

        def allocates(match: Match, knobs: Knobs) -> int:
            return most

        return replace(lowering, allocates=allocates)

    def host_calls(target: Target) -> tuple[Lowering, ...]:
        return tuple(odd(low) for low in lowerings(target) if not low.name.startswith(NATIVE))

    monkeypatch.setattr(LOWERINGS, host_calls)
    compile_small(tmp_path / "a", sizes=Sizes(max_context=128, max_tokens=4, max_reqs=1))
    reader = ArtifactReader(tmp_path / "a")
    seen: dict[str, int] = {}
    for ref in reader.manifest.programs:
        for block in reader.program(ref.file).blocks.values():
            calls = [launch for launch in block if isinstance(launch, HostCall)]
            assert {c.op: c.allocates for c in calls} == {c.op: said[c.op] for c in calls}
            seen |= {call.op: call.allocates for call in calls}
    assert len(seen) >= 10
    assert plan_memory(tmp_path / "a").host_calls == max(seen.values())


def launches_in(artifact: Path) -> list[dict[str, Any]]:
    """Of all programs."""
    programs = (json.loads(p.read_text()) for p in (artifact / "programs").glob("*.json"))
    return [
        launch
        for program in programs
        for launch in (*program["prepare"], *(x for b in program["blocks"].values() for x in b))
    ]


def test_the_plan_takes_the_largest_launch_of_all_programs(torch_artifact: Any) -> None:
    """Read from the files as they lie, by their names in JSON."""
    found = [launch.get("allocates", 0) for launch in launches_in(torch_artifact.artifact)]
    plan = plan_memory(torch_artifact.artifact)
    assert plan.host_calls == max(found) > 0
    manifest = torch_artifact.manifest
    assert plan.weights + plan.arena == manifest.weight_bytes + manifest.arena_bytes
    known = plan.weights + plan.arena + plan.state + plan.inputs + plan.cache + plan.zeroed
    beside = plan.host_calls + plan.scratch
    assert plan.total == known + beside + plan.graph_bytes + plan.libraries


def test_the_plan_takes_the_largest_scratch_of_a_thread(small_artifact: Any) -> None:
    found = [launch.get("shared_bytes", 0) for launch in launches_in(small_artifact.artifact)]
    assert plan_memory(small_artifact.artifact).scratch == max(found) > ROOM_BYTES
