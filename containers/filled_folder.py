"""Fills a folder that others may write, too: with what this process made, and removes only that.

What is made comes to be in a folder of this process's own inside of it, which is held by its
descriptor: whoever renames it, or puts a link in its place, changes nothing. Knows no container.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lostwax.backends.runtime.mounts import require_no_mount
from lostwax.backends.runtime.whole_folder import locked, name_as_new

DESCRIPTORS = Path("/proc/self/fd")
"""A path below one of these leads where the descriptor does, whatever has the folder's name now."""
UNFINISHED = ".unfinished."
"""Begins the name of what is filled; a kill leaves it."""
_OPENED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OWN = 0o700
_NOT_OURS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)
"""What opening says of a name that was taken from us: nothing, a link, another's."""


class FolderInUse(ValueError):
    """The folder has come to hold something; the message says what to do."""


@contextmanager
def filled(out: Path, *, last: str, mode: int) -> Generator[Path]:
    """A private folder to fill; when the block ends well, all that is in it moves into `out`.

    `out` is empty or not there (then it gets `mode`), and it stays where it is: it may be a shell's
    current folder, or a mount. `last` is moved last. An error leaves all as it was. Raises
    FolderInUse, FolderHeld where another process fills it, OSError.
    """
    made: dict[Path, os.stat_result] = {}
    with ExitStack() as held:
        try:
            at = _hold(out, made, held)
            if os.listdir(at):
                raise FolderInUse(f"{out} is not empty; give another -o or remove it")
            if out in made:
                os.fchmod(at, mode)
            with _private(at, out) as (work, within):
                yield work
                _move_all(within, at, out, last)
        except BaseException:
            for each, ours in reversed(made.items()):
                with suppress(OSError):  # another has put something there
                    if os.path.samestat(ours, each.lstat()):
                        each.rmdir()
            raise


def _hold(out: Path, made: dict[Path, os.stat_result], held: ExitStack) -> int:
    """The descriptor of the locked folder, made with those above it where it is not there."""
    while True:
        with suppress(FileNotFoundError):  # another that failed has removed what it had made
            _make(out, made, _OWN)
            at = held.enter_context(locked(out))
            _require_made(out, at, made)
            return at


def _make(folder: Path, made: dict[Path, os.stat_result], mode: int = 0o777) -> None:
    """Make what is not there of a folder and of those above it, and note what was made."""
    if folder.exists():
        return
    _make(folder.parent, made)
    above = os.open(folder.parent, _OPENED)
    try:
        _require_made(folder.parent, above, made)
        with suppress(FileExistsError):  # another was quicker
            _make_in(above, folder, mode)
            ours = _open_made(folder.name, above, folder.parent, mode)
            made[folder] = os.fstat(ours)
            os.close(ours)
    finally:
        os.close(above)


def _make_in(above: int, folder: Path, mode: int) -> None:
    try:
        os.mkdir(folder.name, mode, dir_fd=above)
    except FileNotFoundError as error:
        if os.fstat(above).st_nlink == 0:
            raise
        said = f"{folder.parent} takes no folders"  # such as /proc, and tried again for ever
        raise PermissionError(errno.EPERM, said, str(folder)) from error


def _require_made(folder: Path, at: int, made: dict[Path, os.stat_result]) -> None:
    """FolderInUse where what is open at `at` is not what was made under the folder's name."""
    if folder in made and not os.path.samestat(made[folder], os.fstat(at)):
        raise _exchanged(folder.parent)


def _open_made(name: str, at: int, around: Path, mode: int) -> int:
    """Open what this process has just made in the folder at `at`, which is `around`.

    Who may write there can put another's in its place, or a link: FolderInUse.
    """
    try:
        found = os.open(name, _OPENED | os.O_NOFOLLOW, dir_fd=at)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        raise _exchanged(around) from error
    seen = os.fstat(found)
    is_as_made = seen.st_dev == os.fstat(at).st_dev and not seen.st_mode & 0o777 & ~mode
    if seen.st_uid != os.geteuid() or not is_as_made:
        os.close(found)
        raise _exchanged(around)
    return found


def _exchanged(around: Path) -> FolderInUse:
    return FolderInUse(f"another replaces what is made in {around}; give an -o of your own")


@contextmanager
def _private(at: int, out: Path) -> Generator[tuple[Path, int]]:
    """A folder in the one at `at` that only this user may write, and its descriptor.

    What is left in it at the end is removed.
    """
    name = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=DESCRIPTORS / str(at))).name
    within = _open_made(name, at, out, _OWN)
    try:
        if os.listdir(within):
            raise _exchanged(out)
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
        require_no_mount(DESCRIPTORS / str(at) / name)
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
