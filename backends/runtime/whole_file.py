"""Puts files and folders in place so that a kill or a power cut leaves a whole version.

Knows no format. A name first stands for something when all of its content is on the disk.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

_CANNOT = (errno.EINVAL, errno.ENOTSUP)
"""What network file systems say that sync no folders."""


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    for at, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(at, name))
        sync(Path(at))


def write_whole(path: Path, content: bytes) -> None:
    """Write or replace a file in one step: readers see the old or the new one, never a part.

    Raises OSError, and then leaves what was there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(path.parent)
