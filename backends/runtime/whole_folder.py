"""Puts a folder in the place of another so that one whole version always lies on the disk.

Linux exchanges two names in one step. A file system that cannot gets two renames, between which
the old version has another name; whoever opens or writes the folder next gives it back.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from lostwax.backends.runtime.mounts import require_no_mount
from lostwax.backends.runtime.say import say
from lostwax.backends.runtime.whole_file import sync

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What kernels and file systems say that do not know how to exchange (EPERM: some sandboxes)."""

SAY_AFTER_S = 1.0
WAIT_S = 60.0
"""A lock is held while a folder is renamed and an old version removed: seconds, not minutes."""
_POLL_S = 0.02


class FolderHeld(TimeoutError):
    """Another process has held a folder's lock for longer than any of ours does."""


class NotFinished(OSError):
    """The new version has the folder's name and is whole; what was to be done then failed."""


def aside(folder: Path) -> Path:
    """Where the old version lies between two renames."""
    return folder.parent / f".{folder.name}.replaced"


@contextmanager
def locked(folder: Path) -> Generator[int]:
    """The folder's descriptor, once no other process holds its lock; a killed one holds none.

    Whoever may read the folder can hold it, so that the wait ends: raises FolderHeld;
    FileNotFoundError where the one that held it has removed it.
    """
    lock = _lock(folder)
    try:
        yield lock
    finally:
        os.close(lock)


def _lock(folder: Path) -> int:
    """The lock of what has the folder's name once it is held, not of what had it before."""
    while True:
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _wait_for(lock, folder)
            if os.path.samestat(os.fstat(lock), folder.stat()):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _wait_for(lock: int, folder: Path) -> None:
    start, is_said = time.monotonic(), False
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        waited = time.monotonic() - start
        if waited >= WAIT_S:
            raise FolderHeld(
                f"another process has held the lock of {folder} for {WAIT_S:g} s; end it"
                f" (`fuser {folder}` names it), or write to a folder that only you may read"
            )
        if waited >= SAY_AFTER_S and not is_said:
            say(f"waiting for another process that holds {folder}")
            is_said = True
        time.sleep(_POLL_S)


def exchange(one: Path, other: Path) -> bool:
    """Give each the other's name in one step; False where that cannot be done here."""
    return _renamed(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE)


def name_as_new(name: str, of: int, into: int) -> None:
    """Move an entry of one folder into another, by their descriptors, under the same name.

    Raises FileExistsError, and replaces nothing.
    """
    if _renamed(of, name, into, name, _RENAME_NOREPLACE):
        return
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=into, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
    os.rename(name, name, src_dir_fd=of, dst_dir_fd=into)


def _renamed(of: int, one: Path | str, into: int, other: Path | str, flag: int) -> bool:
    """Whether the kernel and the file system know the flag."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if rename(of, os.fsencode(one), into, os.fsencode(other), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(other))


def put_in_place(made: Path, folder: Path) -> None:
    """Let `made`, whose content is on the disk, take the folder's name; what had it is removed.

    The caller holds the lock of the folder that both lie in. Raises HoldsMount before anything is
    done; NotFinished once `made` has the name: what it replaced may then have that of `made`.
    """
    recover_locked(folder)
    if not os.path.lexists(folder):
        os.rename(made, folder)
        with _in_place(folder):
            sync(folder.parent)
        return
    require_removable(folder)
    old = made
    if not exchange(made, folder):
        old = aside(folder)
        os.rename(folder, old)
        try:
            os.rename(made, folder)
        except BaseException:
            recover_locked(folder)
            raise
    with _in_place(folder):
        sync(folder.parent)
        remove(old)
        sync(folder.parent)


@contextmanager
def _in_place(folder: Path) -> Generator[None]:
    """Nobody is to read of an error in here that nothing was written."""
    try:
        yield
    except OSError as error:
        raise NotFinished(f"{folder} is written and whole; only then: {error}") from error


def recover(folder: Path) -> None:
    """Give a folder its name back if a writer was killed between two renames; else do nothing.

    Where that cannot be done (a read-only disk), nothing happens: the folder is then missing.
    """
    if os.path.lexists(folder) or not os.path.lexists(aside(folder)):
        return
    with suppress(OSError), locked(folder.parent):
        recover_locked(folder)


def recover_locked(folder: Path) -> None:
    """The same, and remove an old version that was replaced; the caller holds the lock."""
    old = aside(folder)
    if not os.path.lexists(old):
        return
    if os.path.lexists(folder):
        remove(old)
    else:
        os.rename(old, folder)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file or link itself.

    Raises HoldsMount, and removes nothing, where something is mounted below it.
    """
    require_removable(path)
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink()


def require_removable(path: Path) -> None:
    """Raise HoldsMount where something is mounted below a folder."""
    if _is_folder(path):
        require_no_mount(path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
