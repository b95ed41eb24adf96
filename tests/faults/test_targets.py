"""What an artifact says of its target counts where the installed target has the same facts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from altered import altered
from command_line import Run, one_sentence
from small_fixtures import Compiled

from lostwax.backends.artifact_writer import seal
from lostwax.backends.cpu.target import CPU
from lostwax.backends.registry import backends
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.require_target import require_target
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.target import Target

TARGETS = [each for b in backends().values() for each in b.load(b.targets)]

OTHER: dict[str, dict[str, Any]] = {
    "replay": {"replay": "graph", "graph_segments": ("decode",)},
    "graph_extend_rows": {"graph_extend_rows": 512},
    "cluster_blocks": {"cluster_blocks": 64},
    "library_bytes": {"library_bytes": 1 << 20},
    "tflops": {"tflops": {"f32": 0.17, "bf16": 0.5}},
}
ABSENT = {
    "backend": ("abacus", "no installed package provides the target folder 'abacus'; install"),
    "name": ("cpu-of-tomorrow", "target folder 'cpu' does not have; recompile it for one of cpu, "),
}


@pytest.fixture
def copy(small_artifact: Compiled, tmp_path: Path) -> Path:
    return shutil.copytree(small_artifact.artifact, tmp_path / "art")


def reseal(artifact: Path, **changes: Any) -> None:
    """Change facts of the artifact's own target, and make its digest true again."""
    manifest = ArtifactReader(artifact).manifest
    target = msgspec.structs.replace(manifest.target, **changes)
    seal(artifact, msgspec.structs.replace(manifest, target=target))


@pytest.mark.parametrize("fact", OTHER)
def test_an_artifact_of_other_facts_does_not_load(
    copy: Path, small_checkpoint: Path, fact: str
) -> None:
    reseal(copy, **OTHER[fact])
    message = rf"compiled for a cpu whose {fact} is .*installed has .*recompile it with this"
    with pytest.raises(ArtifactError, match=message):
        load(copy, checkpoint=small_checkpoint)


@pytest.mark.parametrize("field", ABSENT)
def test_a_target_that_is_not_here_is_refused(field: str) -> None:
    name, message = ABSENT[field]
    with pytest.raises(ArtifactError, match=message):
        require_target(Path("art"), msgspec.structs.replace(CPU, **{field: name}))


@pytest.mark.parametrize("command", ["verify", "certify", "serve"])
def test_commands_say_what_differs_in_a_sentence(run: Run, copy: Path, command: str) -> None:
    reseal(copy, cluster_blocks=64)
    status, out, err = run(command, copy)
    assert (status, out) == (1, "")
    said = one_sentence(err)
    assert "a cpu whose cluster_blocks is 64, and the cpu that is installed has 1" in said
    assert "another version of lostwax compiled it, or it was altered; recompile it" in said


def test_what_explains_an_artifact_needs_no_target(run: Run, copy: Path) -> None:
    reseal(copy, name="abacus-1", backend="abacus")
    status, out, _ = run("plan", copy)
    assert (status, out.startswith("abacus-1, 1 rank")) == (0, True)
    assert run("explain", copy)[0] == 0
    for command in ("verify", "certify", "serve"):
        status, out, err = run(command, copy)
        assert (status, out) == (1, "")
        assert "compiled for abacus-1, and no installed package" in one_sentence(err)


@pytest.mark.parametrize("target", TARGETS, ids=lambda each: each.name)
def test_every_fact_is_compared(target: Target) -> None:
    read = msgspec.json.decode(canonical(target), type=Target)
    require_target(Path("art"), read)
    for where, other in altered(target):
        with pytest.raises(ArtifactError, match="art was compiled for") as error:
            require_target(Path("art"), other)
        assert "compile" in str(error.value), where


OUT_OF_BOUNDS = {
    "memory_bytes": [-1, 1 << 51], "bandwidth_gbps": [0.0, -1.0, 1e300], "launch_us": [0.0, 1e10],
    "tflops": [{"f32": -1.0}, {"f32": 0.0}], "compute_units": [0, -1, 1 << 40],
    "shared_memory_bytes": [-1, 1 << 51], "wave_size": [0, 1 << 40],
    "graph_extend_rows": [-(1 << 63), 10**30, -1], "cluster_blocks": [0, 1 << 40],
    "library_bytes": [-(10**18), -1, 1 << 51], "graph_segments": [["a\nb"]],
    "matrix_units": [["\x1b"]],
}  # fmt: skip


@pytest.mark.parametrize("fact", OUT_OF_BOUNDS)
def test_a_fact_beyond_any_device_does_not_decode(fact: str) -> None:
    written = json.loads(canonical(CPU))
    for value in OUT_OF_BOUNDS[fact]:
        text = json.dumps(written | {fact: value}).encode()
        with pytest.raises(msgspec.ValidationError, match=rf"\$\.{fact}"):
            msgspec.json.decode(text, type=Target)
