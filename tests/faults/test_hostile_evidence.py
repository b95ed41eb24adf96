"""Damaged and hostile certificates, records and configurations: refused by name, or mended."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile_files import FILES, Mutant, file_mutants, restore, value_mutants
from hostile_trial import SEED, no_hang, outcome, try_all
from native_kernels import driver_of
from small_fixtures import Compiled

from lostwax.backends.cpu import BACKEND
from lostwax.backends.records.measurements import open_measurements
from lostwax.backends.records.store import RecordStore, fastest, record_files
from lostwax.backends.runtime import boot_check
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.boot_check import BootReport, check_boot, require_proven
from lostwax.cli.default_model import default_checkpoint
from lostwax.frontend.config import read_config
from lostwax.ir.contract.check_program import code_of
from lostwax.ir.contract.probe import Evidence, Probe
from lostwax.ir.contract.record import Certificate, Record, RecordKey
from lostwax.server.gateway.tokenizer_file import load_codec

SKU = "H200"
KEY = RecordKey(
    region="r",
    lowering="l",
    source="s",
    sku=SKU,
    libraries={},
    values={"x": "f32 [1]"},
    cache="",
)


@pytest.fixture
def certified(small_artifact: Compiled, tmp_path: Path) -> tuple[ArtifactReader, Path]:
    """An artifact, and the file that holds what was proven of it."""
    reader = ArtifactReader(small_artifact.artifact)
    kept = _boot(reader, tmp_path / "evidence").kept
    assert kept is not None
    return reader, kept


def _boot(reader: ArtifactReader, folder: Path) -> BootReport:
    driver = driver_of(reader.folder)
    return check_boot(reader, driver, BACKEND.kernels, folder)


def _ran(probe: Probe, driver: object) -> Evidence:
    """As if a probe had run: what is tried is what becomes of the file."""
    code = {code_of(launch) for launch in probe.launches}
    return Evidence(state="executed", ran=tuple(sorted(code)), max_error=0.0, rms_error=0.0)


def test_a_wrong_certificate_is_mended_and_said(
    certified: tuple[ArtifactReader, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot_check, "run_probe", _ran)
    reader, path = certified
    whole, mended = path.read_bytes(), 0
    for mutant in file_mutants(path, SEED):
        restore(path, whole)
        mutant.apply(path)
        with no_hang(mutant.what):
            report = _boot(reader, path.parent)
        require_proven(report)
        if report.kept is None:  # nothing takes a folder's place
            assert "a folder" in mutant.what
            assert str(path) in str(report)
            continue
        assert _boot(reader, path.parent).ran == 0, f"{mutant.what}: the file is whole again"
        mended += report.ran > 0
        if report.damage:
            assert str(path) in str(report)
            assert "measured again" in str(report)
    assert mended >= len(FILES) - 3, "all but the folder, and a bit or bytes in what is only words"


@pytest.mark.hostile
def test_wrong_values_of_a_certificate_are_mended_refused_or_harmless(
    certified: tuple[ArtifactReader, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot_check, "run_probe", _ran)
    reader, path = certified
    whole = path.read_bytes()

    def use() -> None:
        require_proven(_boot(reader, path.parent))

    found: Counter[str] = Counter()
    for what, text in value_mutants(whole, path.name, 150, SEED):
        restore(path, text)
        found[outcome(what, path.name, use)] += 1
    assert set(found) <= {"harmless", "refused"}, found
    assert found["harmless"] > 100, "a damaged one is measured again"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder with one record."""
    certificate = Certificate(state="executed", max_error=0.1, rms_error=0.1, input_digest="d")
    RecordStore((tmp_path,)).put(
        Record(key=KEY, knobs={"tile": 4}, samples_us=(1.0, 2.0, 3.0), certificate=certificate)
    )
    return tmp_path


def _records(folder: Path) -> Callable[[], object]:
    """What reads records: a compile that is told to, which refuses; a store, which mends."""

    def use() -> None:
        said: list[str] = []
        store = RecordStore((folder,), said.append)
        fastest(store.find(KEY))
        open_measurements(folder, lambda: SKU)

    return use


def _mends(folder: Path) -> None:
    store = RecordStore((folder,), lambda line: None)
    store.put(Record(key=KEY, certificate=Certificate(state="compiled")))
    assert len(store.find(KEY)) > 0
    open_measurements(folder, lambda: SKU)


def test_a_wrong_record_is_refused_by_a_compile_and_mended_by_the_store(recorded: Path) -> None:
    (path,) = record_files(recorded)
    name = str(path.relative_to(recorded))
    use, found = _records(recorded), Counter[str]()
    whole = path.read_bytes()
    for mutant in file_mutants(path, SEED):
        restore(path, whole)
        mutant.apply(path)
        found[outcome(mutant.what, path.name, use)] += 1
        if not path.is_dir() or path.is_symlink():
            _mends(recorded)
    assert set(found) == {"refused", "harmless"}, found
    assert found["harmless"] <= 4, "a missing one, and those that lead nowhere"
    assert try_all(recorded, name, _values(path, 40), use, path.name)["refused"] > 10


def _values(path: Path, count: int) -> Iterator[Mutant]:
    for what, text in value_mutants(path.read_bytes(), path.name, count, SEED):

        def apply(at: Path, text: bytes = text) -> None:
            at.write_bytes(text + b"\n")

        yield Mutant(what, apply)


def test_a_wrong_configuration_is_refused_by_name(small_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(small_checkpoint / "config.json", tmp_path)
    path = tmp_path / "config.json"
    found = try_all(
        tmp_path, path.name, file_mutants(path, SEED), lambda: read_config(path), path.name
    )
    assert found["refused"] >= len(FILES) - 2, "all but a bit or bytes in what is only words"
    found = try_all(tmp_path, path.name, _values(path, 150), lambda: read_config(path), path.name)
    assert found["refused"] > 50


def test_a_wrong_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    shutil.copy(default_checkpoint() / path.name, path)
    found = try_all(
        tmp_path, path.name, file_mutants(path, SEED), lambda: load_codec(tmp_path), path.name
    )
    assert found["refused"] >= len(FILES) - 3, "all but none, and a bit or bytes of a token"
