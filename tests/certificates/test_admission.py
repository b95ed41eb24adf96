"""An artifact cannot ask to be believed: what serving takes of it was checked, or is named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from small import PROMPT, plan
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.artifact_writer import seal
from lostwax.backends.gpu_kernels.interpreter import bind_interpreted
from lostwax.backends.proof.certify import certify_artifact
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.boot_check import Admission, Unproven
from lostwax.backends.runtime.driver import ReadKernel
from lostwax.backends.runtime.gpu_driver import GpuDriver
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.named_code import named_code
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.probe import Certificates, Evidence
from lostwax.ir.contract.program import KernelLaunch

Json = dict[str, Any]
PACKAGES = ("lostwax.backends.cpu.kernels", "lostwax.backends.portable.kernels")


@pytest.fixture
def copy(small_artifact: Compiled, tmp_path: Path) -> Path:
    return shutil.copytree(small_artifact.artifact, tmp_path / "art")


@pytest.fixture
def torch_copy(torch_artifact: Compiled, tmp_path: Path) -> Path:
    """One whose programs call functions by their names."""
    return shutil.copytree(torch_artifact.artifact, tmp_path / "art")


def change(artifact: Path, name: str, edit: Callable[[Json], object]) -> None:
    """Edit a file of JSON and make the digests true again, as a foreign writer would."""
    path = artifact / name
    read: Json = json.loads(path.read_bytes())
    edit(read)
    path.write_bytes(canonical(read))
    manifest = artifact / "manifest.json"
    seal(artifact, msgspec.json.decode(manifest.read_bytes(), type=Manifest))


def serve(artifact: Path, checkpoint: Path, allow: bool = False, certificates: Path | None = None):
    said: list[str] = []
    admission = Admission(certificates, allow, said.append)
    runtime = load(artifact, checkpoint=checkpoint, admission=admission)
    return runtime, said


def test_an_artifact_that_says_it_executes_nothing_is_refused(
    copy: Path, small_checkpoint: Path
) -> None:
    change(copy, "manifest.json", lambda m: m["target"].update(replay="none"))
    with pytest.raises(ArtifactError, match="a cpu whose replay is none"):
        serve(copy, small_checkpoint)


def test_an_artifact_without_probes_is_refused_and_says_what_runs_unproven(
    copy: Path, small_checkpoint: Path
) -> None:
    change(copy, "probes.json", lambda p: p["probes"].clear())
    with pytest.raises(Unproven, match=r"none of its probes does: native-\S+:\w+ \(in programs/"):
        serve(copy, small_checkpoint)
    runtime, (said,) = serve(copy, small_checkpoint, allow=True)
    assert "no probe ran native-" in said
    assert runtime.run(plan(PROMPT, 0)).ids


def test_code_that_only_one_probe_ran_is_missed_by_name(
    torch_copy: Path, small_checkpoint: Path
) -> None:
    def runs_sampling(probe: Json) -> bool:
        return any("sample:pick" in launch.get("function", "") for launch in probe["launches"])

    def drop(probes: Json) -> None:
        probes["probes"] = [p for p in probes["probes"] if not runs_sampling(p)]

    change(torch_copy, "probes.json", drop)
    with pytest.raises(Unproven, match=r"sample:pick"):
        serve(torch_copy, small_checkpoint)


def _rename(program: Json) -> None:
    for launches in program["blocks"].values():
        launches[-1]["function"] = "os:system"


def test_a_foreign_function_is_refused_before_weights_though_compiled_code_is_allowed(
    torch_copy: Path, tmp_path: Path
) -> None:
    name = ArtifactReader(torch_copy).manifest.programs[-1].file  # bound last, if a step ever asks
    change(torch_copy, name, _rename)
    with pytest.raises(ArtifactError, match=rf"{name}: 'os:system' lies outside"):
        serve(torch_copy, tmp_path / "no checkpoint is looked at", allow=True)


def test_evidence_that_came_with_an_artifact_counts_for_nothing_beside_a_folder_of_our_own(
    copy: Path, small_checkpoint: Path, tmp_path: Path
) -> None:
    _, (first,) = serve(copy, small_checkpoint)
    forged = msgspec.json.decode((copy / "certificates.json").read_bytes(), type=Certificates)
    evidence = {k: _better(e) for k, e in forged.evidence.items()}
    forged = msgspec.structs.replace(forged, evidence=evidence)
    (copy / "certificates.json").write_bytes(canonical(forged))
    _, (believed,) = serve(copy, small_checkpoint)
    _, (measured,) = serve(copy, small_checkpoint, certificates=tmp_path / "own")
    assert "probes ran" in first
    assert "(read" in believed, "a trusted input, as SECURITY.md says"
    assert "probes ran" in measured


def _better(evidence: Evidence) -> Evidence:
    return msgspec.structs.replace(evidence, max_error=0.0, rms_error=0.0)


NAMES = {
    "another module": ("os", "system"),
    "a module with such a beginning": ("lostwax.backends.cpu.kernels_of_mine", "f"),
    "the package itself": ("lostwax.backends.cpu.kernels", "experts"),
    "what a kernel module imports": ("lostwax.backends.portable.kernels.linear", "torch"),
    "a function that it imports": ("lostwax.backends.cpu.kernels.row_by_row", "partial"),
    "a private function": ("lostwax.backends.portable.kernels.linear", "_mm"),
    "an attribute's attribute": ("lostwax.backends.portable.kernels.linear", "torch.load"),
    "a dunder": ("lostwax.backends.portable.kernels.linear", "__builtins__"),
    "a way up": ("lostwax.backends.portable.kernels.....os", "system"),
    "no module": ("lostwax.backends.portable.kernels.nothing", "f"),
    "a NUL": ("lostwax.backends.portable.kernels.linear\x00", "linear"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_from_a_file_leads_only_to_functions_of_kernel_packages(name: str) -> None:
    with pytest.raises(ArtifactError, match="recompile") as error:
        named_code(*NAMES[name], PACKAGES)
    assert str(error.value).isprintable()


def test_the_functions_of_kernel_packages_are_found() -> None:
    found = named_code("lostwax.backends.portable.kernels.linear", "linear", PACKAGES)
    assert found.__name__ == "linear"


def _no_views(view: object) -> torch.Tensor:
    raise AssertionError("nothing is bound of what is refused")


def test_interpreting_imports_only_kernel_modules(tmp_path: Path) -> None:
    launch = KernelLaunch(binary="k", symbol="f", grid=(1, 1, 1), block=(1, 1, 1), params=())
    for path, symbol in (("os", "system"), ("tests.tiny", "write_config")):
        source = KernelSource(language="triton", path=path, symbol=symbol)
        with pytest.raises(ArtifactError, match="outside this target's kernels"):
            bind_interpreted(source, launch, _no_views)


def test_knobs_that_a_lowering_does_not_have_are_refused_by_certify(copy: Path) -> None:
    def turn(choices: Json) -> None:
        for regions in choices["programs"].values():
            for region in regions:
                region["knobs"] = {name: -1 for name in region["knobs"]}

    change(copy, "choices.json", turn)
    with pytest.raises(ArtifactError, match=r"choices.json do not say .*no setting \w+=-1"):
        list(certify_artifact(copy))


class Library:
    """A vendor's library that notes what it was given to load."""

    def __init__(self) -> None:
        self.loaded: list[bytes] = []

    def load(self, binary: bytes, symbol: str) -> str:
        self.loaded.append(binary)
        return f"{symbol} of {binary[:4]!r}"


def _driver(kernels: ReadKernel, reader: ArtifactReader) -> tuple[Any, Library]:
    driver, library = GpuDriver.__new__(GpuDriver), Library()  # without a device
    made: Any = driver
    made._kernels, made._library, made._loaded = kernels, library, {}
    made._compiled = {k.binary: k for k in reader.manifest.kernels}
    return made, library


@pytest.fixture(scope="module")
def gpu_artifact(compile_small: CompileSmall, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("triton", reason="the extra `aot` is not installed")
    out = tmp_path_factory.mktemp("gpu") / "art"
    compile_small(out, "cuda-sm90a", dtype="bf16")
    return out


def test_a_binary_is_loaded_as_the_very_bytes_that_were_verified(
    gpu_artifact: Path, tmp_path: Path
) -> None:
    art = shutil.copytree(gpu_artifact, tmp_path / "art")
    reader = ArtifactReader(art)
    reader.check()
    first, second = reader.manifest.kernels[:2]
    driver, library = _driver(reader.kernel, reader)
    driver._kernel(first.binary, first.symbol)
    assert library.loaded == [(art / "kernels" / first.binary).read_bytes()]
    (art / "kernels" / second.binary).write_bytes(b"\x7fELF other code")  # after the check
    with pytest.raises(ArtifactError, match=f"{second.binary} does not match its digest"):
        driver._kernel(second.binary, second.symbol)
    assert len(library.loaded) == 1


def test_two_kernels_of_one_binary_are_two(gpu_artifact: Path) -> None:
    reader = ArtifactReader(gpu_artifact)
    driver, _ = _driver(reader.kernel, reader)
    binary = reader.manifest.kernels[0].binary
    assert driver._kernel(binary, "one") != driver._kernel(binary, "two")


@pytest.mark.parametrize("name", ["../x.cubin", "/etc/x", "sub/x.cubin", "..", ".hidden", ""])
def test_a_binary_lies_in_the_folder_of_kernels(
    gpu_artifact: Path, tmp_path: Path, name: str
) -> None:
    art = shutil.copytree(gpu_artifact, tmp_path / "art")
    manifest: Json = json.loads((art / "manifest.json").read_bytes())
    manifest["kernels"][0]["binary"] = name
    manifest["digest"] = ""
    manifest["digest"] = hashlib.sha256(canonical(manifest)).hexdigest()
    (art / "manifest.json").write_bytes(canonical(manifest))
    with pytest.raises(ArtifactError, match=r"name or path - at `\$.kernels"):
        ArtifactReader(art)


def _sources(plan: Json) -> list[Json]:
    return [source for sources in plan["sources"].values() for source in sources]


@pytest.mark.parametrize("name", ["../w.safetensors", "a/../../w.safetensors", "ABSOLUTE"])
def test_weights_outside_the_checkpoints_folder_are_refused(
    copy: Path, small_checkpoint: Path, name: str
) -> None:
    shard = next(small_checkpoint.glob("*.safetensors"))
    name = str(shard) if name == "ABSOLUTE" else name
    change(copy, "weights.json", lambda plan: [s.update(file=name) for s in _sources(plan)])
    with pytest.raises(ArtifactError, match=r"weights.json is damaged .*name or path"):
        load(copy, checkpoint=small_checkpoint)


def test_a_checkpoint_of_links_is_read(
    small_artifact: Compiled, small_checkpoint: Path, tmp_path: Path
) -> None:
    """As the cache of Hugging Face is: names are links to blobs in another folder."""
    snapshot, blobs = tmp_path / "snapshots" / "main", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(small_checkpoint.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / str(number), snapshot))
    direct = load(small_artifact.artifact, checkpoint=small_checkpoint)
    linked = load(small_artifact.artifact, checkpoint=snapshot)
    assert linked.run(plan(PROMPT, 0)).ids == direct.run(plan(PROMPT, 0)).ids
