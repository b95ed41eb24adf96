"""Damaged and hostile files of artifacts, by the thousand: each is refused by name, or harmless.

The default suite tries whole files; the lane `hostile` tries single values, sealed anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import FILES, Mutant, file_mutants, restore, value_mutants
from hostile_trial import SEED, try_all
from native_kernels import driver_of
from small import PROMPT, batch, plan
from small_fixtures import Compiled, CompileSmall
from step_oracle import plan_of

from lostwax.backends.cpu import BACKEND
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.boot_check import check_boot, require_proven
from lostwax.backends.runtime.checkpoint_content import content_digests, require_content
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.ticket import Held
from lostwax.cli.explain import explain
from lostwax.ir.contract.artifact import CHECKPOINT, OUTSIDE
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.masks import mask_words
from lostwax.ir.contract.program import HEADS, Head
from lostwax.ir.contract.step_plan import StepPlan

PROGRAM = "programs/extend-t16-b2-p8-chosen.json"
ANY_FILE = "/art"
"""One changed value may be missed by another file of the artifact, which then is named."""


@pytest.fixture(scope="module")
def art(small_artifact: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that a test changes and puts back."""
    return shutil.copytree(small_artifact.artifact, tmp_path_factory.mktemp("hostile") / "art")


def reseal(art: Path, name: str) -> None:
    """Make the digests true again, as far as what is written has one: as a foreign writer would."""
    path = art / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if name not in OUTSIDE:
            manifest["files"][name] = hashlib.sha256((art / name).read_bytes()).hexdigest()
        manifest["digest"] = ""
        manifest["digest"] = hashlib.sha256(canonical(manifest)).hexdigest()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return
    path.write_bytes(canonical(manifest))


def step_under(head: Head) -> StepPlan:
    """A prompt under a head, which does all that the head can do."""
    made = batch(PROMPT[:3], 40, head=head)
    if head != "score":
        made.targets = [-1]
    if head == "sample":
        made.mask_rows, made.top_p = [0], [0.5]
    return plan_of(made)


def use_artifact(art: Path, checkpoint: Path, name: str) -> Callable[[], object]:
    """What reads a file of an artifact, up to a step that runs it."""

    def use_probes() -> None:
        reader = ArtifactReader(art)
        driver = driver_of(art)
        require_proven(check_boot(reader, driver, BACKEND.kernels, art.parent / "evidence"))

    def use_choices() -> None:
        explain(art)
        explain(art, "mla.attend")

    def use_program() -> None:
        runtime = load(art, checkpoint=checkpoint)
        ref = next((r for r in runtime.manifest.programs if r.file == name), None)
        if ref is None:
            runtime.run(plan(PROMPT[:1], 40))
            return
        step = step_under(ref.segment if ref.segment in HEADS else "pick")
        ((body, head),) = runtime.programs.pick(step)
        stage = (body, ref) if ref.segment in HEADS else (ref, head)
        begun = runtime._replay([stage], step)  # pyright: ignore[reportPrivateUsage]  these
        if isinstance(begun, Held):
            begun.finish(np.full((1, mask_words(runtime.limits.vocab_size)), -1, np.int32))

    def use_all() -> None:
        ArtifactReader(art).verify_all()
        {"probes.json": use_probes, "choices.json": use_choices}.get(name, use_program)()

    return use_all


def resealed_values(
    art: Path, name: str, count: int, seed: int = SEED, within: str = ""
) -> Iterator[Mutant]:
    whole = (art / name).read_bytes()
    for what, text in value_mutants(whole, name, count, seed, within):

        def apply(at: Path, text: bytes = text) -> None:
            at.write_bytes(text)
            reseal(art, name)

        yield Mutant(what, apply)


VALUES_TRIED = {
    "manifest.json": 240,
    "weights.json": 150,
    PROGRAM: 300,
    "probes.json": 240,
    "choices.json": 60,
    "programs/sample-r2.json": 150,
    "programs/score-r8.json": 150,
}
"""How many values of each file; with the whole files, certificates and the rest over a thousand."""
PARAMETERS_TRIED = 150
"""How many parameters of launches."""


def test_a_wrong_file_of_an_artifact_is_refused_by_name(art: Path, small_checkpoint: Path) -> None:
    for name in VALUES_TRIED:
        use = use_artifact(art, small_checkpoint, name)
        found = try_all(art, name, file_mutants(art / name, SEED), use, Path(name).name)
        assert found == {"refused": len(FILES)}, name


@pytest.mark.hostile
@pytest.mark.parametrize("name", VALUES_TRIED)
def test_resealed_values_are_refused_or_harmless(
    art: Path, small_checkpoint: Path, name: str
) -> None:
    count = VALUES_TRIED[name]
    mutants = resealed_values(art, name, count)
    found = try_all(art, name, mutants, use_artifact(art, small_checkpoint, name), ANY_FILE)
    assert found.total() == count
    assert found["refused"] > found["harmless"], "nearly every value means something"


@pytest.mark.hostile
@pytest.mark.parametrize("name", [PROGRAM, "probes.json"])
def test_resealed_parameters_of_native_kernels_are_refused_or_harmless(
    art: Path, small_checkpoint: Path, name: str
) -> None:
    """Nothing but `cpu/contract/` stands between these numbers and memory."""
    mutants = resealed_values(art, name, PARAMETERS_TRIED, seed=2, within=".params.")
    found = try_all(art, name, mutants, use_artifact(art, small_checkpoint, name), ANY_FILE)
    assert found["refused"] > found["harmless"] > 0


@pytest.mark.hostile
@pytest.mark.parametrize("name", ["manifest.json", "programs/decode-t1-b1-p8-all.json"])
def test_resealed_values_of_kernels_and_their_launches_are_refused_before_a_device(
    compile_small: CompileSmall, tmp_path: Path, name: str
) -> None:
    """Where pointers go to a GPU no torch checks them: the reader does, without a device."""
    art = tmp_path / "art"
    compile_small(art, "cuda-sm90a", dtype="bf16")

    def use() -> None:
        ArtifactReader(art).check()

    assert try_all(art, name, resealed_values(art, name, 200), use, ANY_FILE)["refused"] > 100


def test_a_wrong_note_is_refused_or_harmless(art: Path, small_checkpoint: Path) -> None:
    path = art / CHECKPOINT
    files = content_digests(small_checkpoint, ["model-00001-of-00001.safetensors"])
    before = path.read_bytes() if path.exists() else None
    path.write_text(json.dumps({"path": str(small_checkpoint), "files": files}))

    def use() -> None:
        reader = ArtifactReader(art)
        reader.check()
        if (found := reader.note()) is not None:
            require_content(reader.checkpoint(None), found.files)

    try:
        found = try_all(art, CHECKPOINT, file_mutants(path, SEED), use, CHECKPOINT)
        assert found["refused"] >= len(FILES) - 3, "all but none, and a bit or bytes of the path"
        values = resealed_values(art, CHECKPOINT, 40)
        assert try_all(art, CHECKPOINT, values, use, CHECKPOINT)["refused"] > 20
    finally:
        restore(path, before)
