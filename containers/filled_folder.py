"""Fills a folder that others may write, too: with what this process made, and removes only that.

What is made comes to be in a folder of this process's own inside of it, which is held by its
descriptor: whoever renames it, or puts a link in its place, changes nothing. Knows no container.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lostwax.backends.runtime.whole_folder import locked, name_as_new

DESCRIPTORS = Path("/proc/self/fd")
"""A path below one of these leads where the descriptor does, whatever has the folder's name now."""
UNFINISHED = ".unfinished."
"""Begins the name of what is filled; a kill leaves it."""


class FolderInUse(ValueError):
    """The folder has come to hold something; the message says what to do."""


@contextmanager
def filled(out: Path, *, last: str, mode: int) -> Generator[Path]:
    """A private folder to fill; when the block ends well, all that is in it moves into `out`.

    `out` is empty or not there (then it gets `mode`), and it stays where it is: it may be a shell's
    current folder, or a mount. `last` is moved last. An error leaves all as it was. Raises
    FolderInUse, FolderHeld where another process fills it, OSError.
    """
    made: list[Path] = []
    with ExitStack() as held:
        try:
            at = _hold(out, made, held)
            if out in made:
                os.fchmod(at, mode)
            if os.listdir(at):
                raise FolderInUse(f"{out} is not empty; give another -o or remove it")
            with _private(at, out) as (work, within):
                yield work
                _move_all(within, at, out, last)
        except BaseException:
            for each in reversed(made):
                with suppress(OSError):  # another has put something there
                    each.rmdir()
            raise


def _hold(out: Path, made: list[Path], held: ExitStack) -> int:
    """The descriptor of the locked folder, made with those above it where it is not there."""
    while True:
        with suppress(FileNotFoundError):  # another that failed has removed what it had made
            _make(out, made)
            return held.enter_context(locked(out))


def _make(folder: Path, made: list[Path]) -> None:
    if folder.exists():
        return
    _make(folder.parent, made)
    with suppress(FileExistsError):  # another was quicker
        folder.mkdir()
        made.append(folder)


@contextmanager
def _private(at: int, out: Path) -> Generator[tuple[Path, int]]:
    """A folder in the one at `at` that only this user may write, and its descriptor.

    What is left in it at the end is removed.
    """
    name = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=DESCRIPTORS / str(at))).name
    within = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        found = os.fstat(within)
        if os.listdir(within) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise FolderInUse(f"another replaces what is made in {out}; give an -o of your own")
        try:
            yield DESCRIPTORS / str(within), within
        finally:
            for each in os.listdir(within):
                _remove(each, within)
    finally:
        with suppress(OSError):  # it has another place or name now
            if os.path.samestat(os.fstat(within), _entry(name, at)):
                os.rmdir(name, dir_fd=at)
        os.close(within)


def _entry(name: str, at: int) -> os.stat_result:
    return os.stat(name, dir_fd=at, follow_symlinks=False)


def _remove(name: str, at: int) -> None:
    if stat.S_ISDIR(_entry(name, at).st_mode):
        shutil.rmtree(name, dir_fd=at)
    else:
        os.unlink(name, dir_fd=at)


def _move_all(within: int, at: int, out: Path, last: str) -> None:
    """Give every entry its name in `out`; where that fails, take back those that have one."""
    moved: dict[str, os.stat_result] = {}
    try:
        for name in sorted(os.listdir(within), key=lambda each: (each == last, each)):
            moved[name] = _entry(name, within)
            try:
                name_as_new(name, within, at)
            except FileExistsError as error:
                raise FolderInUse(
                    f"{out} has come to hold {name}, which is another's; give another -o"
                ) from error
    except BaseException:
        for name, ours in moved.items():
            with suppress(OSError):
                if os.path.samestat(ours, _entry(name, at)):
                    name_as_new(name, at, within)
        raise
