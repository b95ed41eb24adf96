"""A damaged, foreign or newer artifact is refused whole, whichever of its files is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from command_line import Run, listing, one_sentence
from small_fixtures import Compiled

from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.load import load
from lostwax.ir.contract.artifact import CERTIFICATES, CHECKPOINT
from lostwax.ir.contract.kernel import CompiledKernel


@pytest.fixture
def copy(small_artifact: Compiled, tmp_path: Path) -> Path:
    return shutil.copytree(small_artifact.artifact, tmp_path / "art")


def test_verify_says_that_all_is_well(run: Run, copy: Path) -> None:
    status, out, _ = run("verify", copy, "--json")
    manifest = ArtifactReader(copy).manifest
    assert status == 0
    assert json.loads(out)["digest"] == manifest.digest
    files = {name for name in listing(copy) if (copy / name).is_file()}
    outside = {CHECKPOINT, CERTIFICATES}  # what belongs to one machine is not verified
    assert json.loads(out)["files"] == len(files - outside)


def test_verify_notices_a_bit_in_every_file(copy: Path) -> None:
    for name in (*ArtifactReader(copy).manifest.files, "manifest.json"):
        path = copy / name
        whole = path.read_bytes()
        at = len(whole) // 3
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(ArtifactError, match=path.name):
            ArtifactReader(copy).verify_all()
        path.write_bytes(whole)
    ArtifactReader(copy).verify_all()


def test_serving_notices_a_bit_in_every_program_and_kernel(
    copy: Path, small_checkpoint: Path
) -> None:
    programs = [ref.file for ref in ArtifactReader(copy).manifest.programs]
    for name in (*programs, "weights.json"):
        path = copy / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(ArtifactError, match=path.name):
            load(copy, checkpoint=small_checkpoint)
        path.write_bytes(whole)


def test_verify_notices_a_file_too_many(run: Run, copy: Path) -> None:
    (copy / "programs" / "mine.json").write_text("{}")
    status, _, err = run("verify", copy)
    assert status == 1
    assert "mine.json is no part of the artifact: remove it" in one_sentence(err)


MANIFESTS = {
    "torn": ('{"schema": 1', "recompile"),
    "foreign": ('{"format_version": 3, "layers": []}', "recompile"),
    "older": ('{"schema": 1}', "was written by an older lostwax"),
    "newer": ('{"schema": 99}', "upgrade lostwax or recompile"),
    "not JSON": ("PK\x03\x04", "recompile"),
    "not an object": ("[]", "recompile"),
    "empty": ("", "recompile"),
}


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("command", ["verify", "serve", "explain", "certify", "plan"])
def test_a_manifest_that_is_not_ours_is_one_sentence(
    run: Run, tmp_path: Path, command: str, name: str
) -> None:
    text, remedy = MANIFESTS[name]
    (tmp_path / "manifest.json").write_text(text)
    status, out, err = run(command, tmp_path)
    assert (status, out) == (1, "")
    assert remedy in one_sentence(err)
    assert listing(tmp_path) == ["manifest.json"]


def test_all_that_serving_reads_is_checked_before_anything_runs(copy: Path) -> None:
    reader = ArtifactReader(copy)
    reader.check()
    for name in (*(ref.file for ref in reader.manifest.programs), "weights.json", "probes.json"):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(ArtifactError, match=Path(name).name):
            ArtifactReader(copy).check()
        (copy / name).write_bytes(whole)
    kernel = CompiledKernel(
        binary="absent.cubin", symbol="k", digest="", num_warps=1, shared_bytes=0, registers=1
    )
    reader.manifest = msgspec.structs.replace(reader.manifest, kernels=(kernel,))
    with pytest.raises(ArtifactError, match=r"lacks kernels/absent\.cubin"):
        reader.check()


def test_a_manifest_that_was_edited_is_refused(copy: Path) -> None:
    """Though each of its fields may be so."""
    manifest = ArtifactReader(copy).manifest
    model = msgspec.structs.replace(manifest.model, name="another")
    edited = msgspec.structs.replace(manifest, model=model)
    (copy / "manifest.json").write_bytes(msgspec.json.encode(edited))
    with pytest.raises(ArtifactError, match="does not match its own digest"):
        ArtifactReader(copy)
    (copy / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    ArtifactReader(copy)
