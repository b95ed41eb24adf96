"""Writes a container's folder: what a build takes, and how to run the image. Builds nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lostwax

WHEEL = f"lostwax-{lostwax.__version__}-py3-none-any.whl"
TAKEN = ("artifact", "records", "wheel", "wheels")
"""Folders that the Dockerfile takes from; empty ones are there, too."""


class WrongWheel(ValueError):
    """The file that was given is no wheel of this lostwax; the message says which is wanted."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What the user brings: lostwax's wheel, packages' files, an artifact, tuning records."""

    wheel: Path | None = None
    wheels: Path | None = None
    artifact: Path | None = None
    records: Path | None = None


def require_wheel(path: Path) -> None:
    """WrongWheel unless the file has the name of this version's wheel."""
    if path.name != WHEEL:
        raise WrongWheel(
            f"{path} is not the wheel of this lostwax; give {WHEEL}, which"
            " `python -m build --wheel` makes in its source tree"
        )


def write_folder(folder: Path, files: Mapping[str, bytes], brought: Brought) -> None:
    """Fill a folder that is empty or not there. Raises OSError, WrongWheel."""
    if brought.wheel is not None:
        require_wheel(brought.wheel)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name in TAKEN:
        (folder / name).mkdir(exist_ok=True)
    if brought.wheel is not None:
        shutil.copy(brought.wheel, folder / "wheel")
    for name, source in (
        ("wheels", brought.wheels),
        ("artifact", brought.artifact),
        ("records", brought.records),
    ):
        if source is not None:
            shutil.copytree(source, folder / name, dirs_exist_ok=True)
