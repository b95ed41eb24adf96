"""Writes an artifact folder: all of it or nothing. Knows files and digests, no graph."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from lostwax.backends.runtime.mounts import mount_below, mounts
from lostwax.backends.runtime.whole_file import sync_tree
from lostwax.backends.runtime.whole_folder import (
    NotFinished,
    locked,
    put_in_place,
    recover_locked,
    remove,
)
from lostwax.ir.contract.artifact import MANIFEST, OUTSIDE, Manifest
from lostwax.ir.contract.canonical import canonical

WORK = ".compiling."
"""Follows the dot and the artifact's name in the folder that a compile fills beside it."""
TRIAL = ".preparing."
"""Stands there while it is tried whether that can be made: as long, as names have a longest."""
FULL_DISK = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space within the quota",
    errno.EFBIG: "raise the limit on file sizes",
}
"""What to do about each way in which a disk takes no more, wherever it is."""
REFUSED = {
    errno.EROFS: "give an -o on a file system that can be written",
    errno.EACCES: "give an -o that you may write",
    errno.EPERM: "give an -o that you may write",
    errno.EBUSY: "give an -o that is no mount, such as a folder below it",
    errno.ENAMETOOLONG: "give an -o with a shorter name",
}
"""What to do about each way in which the artifact's own folder is refused."""


class ArtifactExists(ValueError):
    """The output folder holds something that is no artifact, or none can take its place."""


class ArtifactUnwritable(OSError):
    """The disk refused the artifact; nothing of it was left behind."""


class CompileRuns(RuntimeError):
    """Another process compiles into the same folder now."""


def sha256_file(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path, name: str, data: bytes) -> None:
    """Write one file of the artifact, making its folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Add every file's digest and the artifact's own, write the manifest and return it."""
    files = {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and str(path.relative_to(folder)) not in OUTSIDE
    }
    unsigned = msgspec.structs.replace(manifest, files=files, digest="")
    digest = hashlib.sha256(canonical(unsigned)).hexdigest()
    sealed = msgspec.structs.replace(unsigned, digest=digest)
    write(folder, MANIFEST, canonical(sealed))
    return sealed


def require_replaceable(out: Path) -> None:
    """Raise ArtifactExists where `out` is a file, or a full folder that is no artifact.

    So nothing that is not an artifact is ever replaced. Nor can a mount be, or what holds one or
    may not be removed, and in what was replaced a shell would go on, in `out` or below it.
    """
    out = _named(out)
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactExists(f"{out} exists and is no artifact; give another -o or remove it")
    kept = _kept(out)
    if kept is not None:
        raise ArtifactExists(
            f"{out} {kept}, which another folder cannot take the place of; give another -o"
        )


def require_place(out: Path) -> None:
    """`require_replaceable`, and ArtifactUnwritable where nothing can be made beside it now."""
    require_replaceable(out)
    out = _named(out)
    above = next(each for each in out.absolute().parents if each.exists())
    with _disk_errors(out):
        try:
            os.rmdir(tempfile.mkdtemp(prefix=f".{out.name}{TRIAL}", dir=above))
        except FileNotFoundError as error:  # /proc says so, whatever its mode
            raise ArtifactUnwritable(f"{above} takes no folders; give another -o") from error


def _named(out: Path) -> Path:
    """The path with a name that a folder can take, before anybody asks what lies there: where
    `new` is not there, `new/..` is nothing, and the current folder once `new` was made."""
    return out.resolve() if out.name in ("", "..") else out


def _kept(out: Path) -> str | None:
    """What keeps another folder from its place, in words."""
    if not out.exists():
        return None
    there = out.resolve()
    with suppress(FileNotFoundError):  # the current folder was removed
        here = Path.cwd().resolve()
        if there in (here, *here.parents):
            return "is the current folder" if there == here else "holds the current folder"
    if out.is_mount() or there in mounts():
        return "is a mount"
    if (below := mount_below(there)) is not None:
        return f"holds the mount {below}"
    if not all(os.access(at, os.W_OK | os.X_OK) for at, _, _ in os.walk(out)):
        return "holds what may not be removed"
    return None


@contextmanager
def atomic_folder(out: Path) -> Generator[Path]:
    """A folder beside `out` that takes its place when the block ends well, and else vanishes.

    One whole version lies on the disk at every moment, and the new one is all on it before it has
    the name. What a killed compile left is removed first. Raises ArtifactExists as
    `require_replaceable` does, CompileRuns where another compile fills such a folder now,
    ArtifactUnwritable.
    """
    require_replaceable(out)
    out = _named(out)
    with _disk_errors(out), _work_folder(out) as work:
        yield work
        work.chmod(0o755)
        sync_tree(work)
        with locked(out.parent):
            put_in_place(work, out)


@contextmanager
def _disk_errors(out: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        path = _refused(error, out)
        remedies = FULL_DISK if path != out else FULL_DISK | REFUSED
        remedy = remedies.get(error.errno or 0)
        if remedy is None or isinstance(error, ArtifactUnwritable):
            raise
        said = f"cannot write {path} ({error.strerror}); {remedy}, nothing was left behind"
        raise ArtifactUnwritable(error.errno, said) from error


def _refused(error: OSError, out: Path) -> Path:
    """The artifact, unless the error names a path that does not lie beside it, such as one of a
    compiler's temporary files."""
    named: str | bytes | os.PathLike[str] | int | None = error.filename  # int: a descriptor
    if named is None or isinstance(named, int):
        return out
    path, beside = Path(os.fsdecode(named)), out.absolute().parent
    return out if beside in (path.absolute(), *path.absolute().parents) else path


@contextmanager
def _work_folder(out: Path) -> Generator[Path]:
    """A locked folder beside `out`. The lock is the process's: a killed one holds none."""
    out.parent.mkdir(parents=True, exist_ok=True)
    # Locked so that none is taken for a dead one between its making and its own lock.
    with locked(out.parent):
        recover_locked(out)
        for left in sorted(out.parent.glob(f".{_literal(out.name)}{WORK}*")):
            _remove_dead(left, out)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}{WORK}", dir=out.parent))
        lock = os.open(work, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield work
    except NotFinished:
        raise  # `work` is the version that was replaced, and what keeps it is said
    except BaseException:
        _take_back(work)
        raise
    finally:
        os.close(lock)


def _take_back(work: Path) -> None:
    try:
        remove(work)
    except OSError as error:
        raise ArtifactUnwritable(
            f"the artifact could not be written, nor {work} removed ({error}); remove that"
        ) from error


def _remove_dead(left: Path, out: Path) -> None:
    """Remove what a killed compile left; CompileRuns where its process lives."""
    if left.is_symlink() or not left.is_dir():  # what a killed compile had just replaced
        left.unlink()
        return
    with suppress(FileNotFoundError):
        lock = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(left)
        except BlockingIOError as error:
            raise CompileRuns(
                f"another process compiles {out} now; wait until it ends, or give another -o"
            ) from error
        finally:
            os.close(lock)


def _literal(name: str) -> str:
    """A name as a glob pattern that matches it alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
