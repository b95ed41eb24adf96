"""Replaces an artifact in processes that are killed, each at another step; run by its test.

Usage: replacing_killed.py VERSIONS OUT exchange|renames. VERSIONS holds two artifacts. A child is
killed at its n-th step of the file system, for every n until one lives: then the artifact in OUT
is opened, as `serve` opens it, and must be one of the two, whole. Prints how many were killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from lostwax.backends.artifact_writer import atomic_folder
from lostwax.backends.runtime import whole_folder
from lostwax.backends.runtime.artifact_reader import ArtifactReader

STEPS = ("os.", "open", "shutil.", "ctypes.dlsym", "fcntl.")
"""Audit events that stand for a step: renames, removals, files opened, the exchange, locks."""


def replace(new: Path, out: Path) -> None:
    with atomic_folder(out) as folder:
        shutil.copytree(new, folder, dirs_exist_ok=True)


def killed_at(step: int, new: Path, out: Path) -> bool:
    """Whether a child that replaces the artifact was killed before its end."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, arguments: object) -> None:
            nonlocal left
            if event.startswith(STEPS):
                left -= 1
                if left == -1:  # once: the kill is an event, too
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            replace(new, out)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(versions: Path, out: Path, way: str) -> None:
    if way == "renames":
        whole_folder.exchange = lambda one, other: False
    first, second = sorted(versions.iterdir())
    digests = {ArtifactReader(v).manifest.digest for v in (first, second)}
    replace(first, out)
    killed = 0
    for step in range(10_000):
        replace(first, out)  # what the last one left is gone: steps are the same each time
        new = (second, first)[step % 2]
        alive = not killed_at(step, new, out)
        reader = ArtifactReader(out)
        reader.verify()
        assert reader.manifest.digest in digests
        if alive:
            break
        killed += 1
    replace(second, out)
    assert sorted(p.name for p in out.parent.iterdir()) == [out.name], "all that was left is gone"
    assert ArtifactReader(out).manifest.digest == ArtifactReader(second).manifest.digest
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
