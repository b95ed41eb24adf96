"""lock/ holds what constraints.txt and pyproject.toml say, and ./dev installs nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LANES = ("clients", "containers")
LOCKED = ("core", "cuda", "dev", *LANES)
ENTRY = re.compile(r"([\w.-]+)==([\w.]+)(?:; [^\\\n]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in found}


def locked(name: str) -> dict[str, tuple[str, set[str]]]:
    """Version and hashes by package; every line of the file is a part of one."""
    text = (ROOT / "lock" / f"{name}.txt").read_text()
    body = "".join(line for line in text.splitlines(True) if not line.startswith("#"))
    entries = {m[1]: (m[2], set(re.findall(r"sha256:(\w+)", m[3]))) for m in ENTRY.finditer(body)}
    assert ENTRY.sub("", body).split() == [], "a line without hashes, an option or a host"
    return entries


@pytest.mark.parametrize("name", LOCKED)
def test_the_lock_has_the_versions_of_the_constraints(name: str) -> None:
    of_constraints = pins()
    found = locked(name)
    assert {p: version for p, (version, _) in found.items()} == {
        p: of_constraints[p] for p in found
    }
    assert all(hashes for _, hashes in found.values())


def test_every_constraint_and_every_requirement_is_locked() -> None:
    core, cuda, dev, *lanes = map(locked, LOCKED)
    of_lane: dict[str, dict[str, tuple[str, set[str]]]] = {}
    of_lane.update(zip(LANES, lanes, strict=True))
    assert set(pins()) == set(core | cuda | dev).union(*lanes), "run ./dev lock"
    file = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = map(Requirement, file["project"]["dependencies"] + file["build-system"]["requires"])
    assert {canonicalize_name(r.name) for r in needed} <= set(core)
    extras = file["project"]["optional-dependencies"]
    for extra in ("aot-cuda", "otel", "test", "lint", *LANES):
        asked = {canonicalize_name(Requirement(line).name) for line in extras[extra]} - {"lostwax"}
        assert asked <= set(core | dev | of_lane.get(extra, {})), extra


def test_the_lock_takes_torchs_builds_for_the_cpu_as_well() -> None:
    _, hashes = locked("core")["torch"]
    version, of_cpu = locked("torch-cpu")["torch"]
    assert version == pins()["torch"]
    assert of_cpu < hashes


def wheel(folder: Path) -> Path:
    """The smallest wheel that pip installs."""
    path = folder / "nothing-1-py3-none-any.whl"
    info = "nothing-1.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("nothing.py", "")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1\n")
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", tags)
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("is_right", [True, False])
def test_dev_installs_a_file_only_if_it_has_the_locked_hash(tmp_path: Path, is_right: bool) -> None:
    (tmp_path / "dev").write_bytes((ROOT / "dev").read_bytes())
    package = wheel(tmp_path)
    right = hashlib.sha256(package.read_bytes()).hexdigest()
    written = right if is_right else "0" * 64
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "core.txt").write_text(f"nothing==1 --hash=sha256:{written}\n")
    for name in ("pyproject.toml", "src/lostwax/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    # An environment that looks made, whose Python is ours but installs into the folder `target`.
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "made-in").write_text(f"{tmp_path}\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    target = tmp_path / "target"
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_TARGET": str(target)}
    done = subprocess.run(
        ["bash", tmp_path / "dev", "serve"],
        env=os.environ | offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0, "no lostwax is there to be served in any case"
    assert (target / "nothing.py").is_file() == is_right, done.stderr
    assert ("THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr) != is_right, done.stderr
