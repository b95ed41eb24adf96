"""The wheel is complete and runs on its own. The one test that avoids the editable install."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("backends", "cli", "evals", "frontend", "ir", "server")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, built without isolation and so without a network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = out.glob("lostwax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


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
    expected = _tracked(*front_door, "backends", "evals", "frontend", "ir", "server")
    missing = sorted(str(path) for path in expected if not (unpacked / path).is_file())
    assert not missing, f"add to `only-include` in pyproject.toml: {missing}"


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
