"""Environments of tools that cannot live beside lostwax: each is made once for its pins.

Knows no tool.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Fill = Callable[[Path, tuple[str, ...]], None]
"""Puts packages into a folder that is empty or missing."""


def python_in(folder: Path) -> Path:
    """The environment's interpreter, whether it exists or not."""
    return folder / "bin" / "python"


def make_environment(folder: Path, packages: tuple[str, ...], fill: Fill | None = None) -> None:
    """Make the environment unless it is there: by pip, or by `fill`.

    Raises CalledProcessError, with pip's message, and what `fill` raises.
    """
    wanted = hashlib.sha256("\n".join(packages).encode()).hexdigest()
    stamp = folder / "made-of"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    (fill or _by_pip)(folder, packages)
    stamp.write_text(wanted)


def _by_pip(folder: Path, packages: tuple[str, ...]) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # torch is a CPU build here: other tools bring their device, and nothing of CUDA is wanted
    pip = [python_in(folder), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--only-binary", ":all:", *packages], check=True)
