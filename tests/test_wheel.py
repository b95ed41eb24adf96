"""The wheel is complete and runs on its own. The one test that avoids the editable install."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("backends", "cli", "containers", "evals", "frontend", "ir", "server")

MAX_WHEEL_BYTES = 40 << 20  # the default model is most of it

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, without isolation and so without a network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = out.glob("lostwax-*.whl")
    return wheel


@pytest.fixture(scope="module")
def unpacked(wheel: Path) -> Path:
    """The wheel's content."""
    site = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def _tracked(*patterns: str) -> set[Path]:
    """Files of the rooms and the front door that git knows, where they lie in the package."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return {Path("lostwax", name.removeprefix("src/lostwax/")) for name in listed}


def test_wheel_holds_only_lostwax(unpacked: Path) -> None:
    names = {path.name.split("-")[0] for path in unpacked.iterdir()}
    assert names == {"lostwax"}


def test_wheel_holds_every_tracked_file_of_the_package(unpacked: Path) -> None:
    front_door = ("src/lostwax/*.py", "src/lostwax/py.typed", "src/lostwax/cli")
    rooms = ("backends", "containers", "evals", "frontend", "ir", "server")
    locks = ("lock/ascend.txt", "lock/core.txt", "lock/cuda.txt", "lock/torch-cpu.txt")
    expected = _tracked(*front_door, *rooms, *locks, "models/tiny/tasks")
    missing = sorted(str(path) for path in expected if not (unpacked / path).is_file())
    assert not missing, f"add to `only-include` in pyproject.toml: {missing}"


def test_wheel_holds_the_default_model_without_its_recipe(wheel: Path, unpacked: Path) -> None:
    expected = _tracked("models/tiny/weights")
    assert {path.suffix for path in expected} == {".json", ".safetensors"}
    for path in expected:
        source = ROOT / path.relative_to("lostwax")
        assert (unpacked / path).read_bytes() == source.read_bytes(), path
    assert not (unpacked / "lostwax" / "models" / "tiny" / "recipe").exists()
    assert wheel.stat().st_size < MAX_WHEEL_BYTES


def test_default_model_is_found_in_the_wheel(unpacked: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r});"
        "from lostwax.cli.default_model import default_checkpoint; print(default_checkpoint())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=unpacked, check=True, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()) == unpacked / "lostwax" / "models" / "tiny" / "weights"


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_from_the_wheel(unpacked: Path, room: str) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r});"
        f"import lostwax.{room} as room; print(room.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=unpacked,
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(unpacked)
