"""An artifact is whole or refused, never half used; a compile leaves all of it or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from small_fixtures import Compiled

from lostwax.backends.artifact_writer import ArtifactExists, seal
from lostwax.backends.lowering import Work
from lostwax.backends.plan.emit import EmitError
from lostwax.backends.portable.lowerings.linear import LINEAR
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.load_weights import CheckpointMismatch
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.check_manifest import check_manifest
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.program import Guard, HostCall, Linear

PROGRAM = "programs/decode-t1-b1-p8-all.json"
FILES = ["manifest.json", "weights.json", PROGRAM, "choices.json", "graphs/captured.mlir"]


@pytest.fixture
def copy(small_artifact: Compiled, tmp_path: Path) -> Path:
    return shutil.copytree(small_artifact.artifact, tmp_path / "copy")


def open_everything(artifact: Path, checkpoint: Path) -> None:
    """What serving reads, then what `explain` reads and what only people do."""
    load(artifact, checkpoint=checkpoint)
    reader = ArtifactReader(artifact)
    for name in reader.manifest.files:
        reader.read(name)


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _tear(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _empty(data: bytes) -> bytes:
    return b""


def _prefix(data: bytes) -> bytes:
    return b"\xff\xfe" + data


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "spoil",
    [_flip, _tear, _empty, _prefix],
    ids=["bit", "torn", "empty", "not-utf8"],
)
def test_a_damaged_file_is_named(
    copy: Path, small_checkpoint: Path, name: str, spoil: Callable[[bytes], bytes]
) -> None:
    path = copy / name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ArtifactError, match=Path(name).name) as error:
        open_everything(copy, small_checkpoint)
    assert "recompile" in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy: Path, small_checkpoint: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=Path(name).name):
        open_everything(copy, small_checkpoint)


def test_a_damaged_program_is_refused_at_load_and_not_in_the_middle_of_an_answer(
    copy: Path, small_checkpoint: Path
) -> None:
    (copy / PROGRAM).write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=PROGRAM):
        load(copy, checkpoint=small_checkpoint)


def resealed(artifact: Path, **changes: Any) -> None:
    """Change the manifest and make its digests true again, as a foreign writer would."""
    manifest = msgspec.json.decode((artifact / "manifest.json").read_bytes(), type=Manifest)
    seal(artifact, msgspec.structs.replace(manifest, **changes))


def test_a_newer_artifact_asks_for_an_upgrade(copy: Path, small_checkpoint: Path) -> None:
    resealed(copy, schema=99)
    with pytest.raises(ArtifactError, match=r"newer lostwax \(schema 99.*upgrade"):
        load(copy, checkpoint=small_checkpoint)


def test_a_folder_that_is_no_artifact_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="make one with `lostwax compile"):
        ArtifactReader(tmp_path)


@pytest.mark.parametrize("function", ["os:system", "lostwax.backends.portable.kernels.step:no"])
def test_a_program_may_call_only_kernels_of_its_target(
    torch_artifact: Compiled, small_checkpoint: Path, tmp_path: Path, function: str
) -> None:
    copy = shutil.copytree(torch_artifact.artifact, tmp_path / "art")
    for path in (copy / "programs").glob("extend-*.json"):
        program = json.loads(path.read_bytes())
        program["prepare"][0]["function"] = function
        path.write_text(json.dumps(program))
    resealed(copy)
    with pytest.raises(ArtifactError, match="recompile"):
        load(copy, checkpoint=small_checkpoint)


def test_a_manifest_that_names_files_outside_is_refused(
    copy: Path, small_checkpoint: Path, tmp_path: Path
) -> None:
    written = json.loads((copy / "manifest.json").read_bytes())
    first = written["programs"][0]["file"]
    outside = tmp_path / "outside.json"
    shutil.copy(copy / first, outside)
    for name in ("../outside.json", str(outside), "programs/../../outside.json"):
        written["programs"][0]["file"] = name
        written["files"][name] = hashlib.sha256(outside.read_bytes()).hexdigest()
        written["digest"] = ""
        written["digest"] = hashlib.sha256(canonical(written)).hexdigest()
        (copy / "manifest.json").write_bytes(canonical(written))
        with pytest.raises(ArtifactError, match=r"manifest.json is damaged .*name or path.* at "):
            load(copy, checkpoint=small_checkpoint)
        del written["files"][name]


def test_another_checkpoint_is_refused_by_the_tensor(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointMismatch, match=r"cannot read .* give the checkpoint that"):
        load(small_artifact.artifact, checkpoint=tmp_path)


def _fail(match: object, knobs: object) -> tuple[HostCall, ...]:
    raise EmitError("not today")


def _no_work(match: object, knobs: object) -> Work:
    return Work(0, 0, 0)


FAILING = replace(
    LINEAR[0],
    name="a_failing_linear",
    emit=_fail,
    work=_no_work,
)


def test_a_compile_that_fails_while_emitting_leaves_nothing_behind(
    compile_small: Callable[..., Manifest], tmp_path: Path
) -> None:
    with pytest.raises(EmitError, match="not today"):
        compile_small(tmp_path / "a", extra_lowerings=(FAILING,))
    assert list(tmp_path.iterdir()) == []


def test_a_compile_that_fails_leaves_the_old_artifact_as_it_was(
    compile_small: Callable[..., Manifest], copy: Path
) -> None:
    before = ArtifactReader(copy).manifest.digest
    with pytest.raises(EmitError):
        compile_small(copy, extra_lowerings=(FAILING,))
    assert ArtifactReader(copy).manifest.digest == before
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]


def test_what_is_no_artifact_is_never_replaced(
    compile_small: Callable[..., Manifest], tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("one")
    for out in (tmp_path / "thesis", tmp_path / "thesis" / "chapter"):
        with pytest.raises(ArtifactExists, match="exists and is no artifact; give another -o"):
            compile_small(out)
    assert (tmp_path / "thesis" / "chapter").read_text() == "one"


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        (Guard("any", selects_all=True), "its guard admits 512 of them where index_topk is 32"),
        (Guard("any", (Linear({"max_kv": 1}, 33),), selects_all=True), "admits 33 of them"),
        (Guard("any", (Linear({"max_kv": 2}, 32),), selects_all=True), "admits 512 of them"),
        (Guard("any", (Linear({"total_kv": -1}, 0),)), "negative coefficient of total_kv"),
    ],
)
def test_a_guard_that_the_host_cannot_trust_is_refused(
    small_artifact: Compiled, guard: Guard, message: str
) -> None:
    replace_struct = msgspec.structs.replace
    manifest = small_artifact.manifest
    first, *rest = manifest.programs
    bad = replace_struct(manifest, programs=(replace_struct(first, guard=guard), *rest))
    with pytest.raises(Inconsistent, match=message):
        check_manifest(bad)
    check_manifest(manifest)
