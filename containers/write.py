"""Writes a container's folder: what a build takes, and how to run the image. Builds nothing.

Of what is brought only what was checked is written, and never what only lies beside it. A failure
leaves nothing, and a kill no Dockerfile, which comes last: nothing is built from a part. It all is
readable for the image's user, whatever the umask.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

import lostwax
from lostwax.backends.artifact_writer import FULL_DISK, REFUSED
from lostwax.backends.records.store import RecordStore, record_files
from lostwax.backends.runtime.artifact_reader import MANIFEST_LIMIT, ArtifactError, ArtifactReader
from lostwax.containers.filled_folder import DESCRIPTORS, filled
from lostwax.ir.contract.artifact import CHECKPOINT, MANIFEST
from lostwax.ir.contract.foreign_file import read_bounded

WHEEL = f"lostwax-{lostwax.__version__}-py3-none-any.whl"
TAKEN = ("artifact", "records", "wheel", "wheels")
"""Folders that the Dockerfile takes from; empty ones are there, too."""
MOUNTED = "/checkpoint"
"""Where the checkpoint lies in the image, which needs no path of the machine that compiled."""
LAST = "Dockerfile"
"""Nothing is built without it."""
_FILE, _FOLDER = 0o644, 0o755


class WrongWheel(ValueError):
    """The file that was given is no wheel of this lostwax; the message says which is wanted."""


class WrongSource(ValueError):
    """A folder that was brought cannot be written into another; the message says what to do."""


class FolderUnwritable(OSError):
    """The disk refused the folder, and nothing of it was left; the message says what to do."""


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


def require_apart(folder: Path, brought: Brought) -> None:
    """WrongSource where the folder lies in one that is to be written into it."""
    out = folder.resolve()
    for source in (brought.artifact, brought.records, brought.wheels):
        if source is not None and source.resolve() in (out, *out.parents):
            raise WrongSource(f"{folder} lies in {source}, which goes into it; give another -o")


def write_folder(folder: Path, files: Mapping[str, bytes], brought: Brought) -> None:
    """Fill a folder that is empty or not there: with all of it, or nothing.

    Raises FolderInUse, FolderUnwritable, OSError, WrongWheel, WrongSource, ArtifactError and
    BadRecord, and FolderHeld where another process fills it.
    """
    if brought.wheel is not None:
        require_wheel(brought.wheel)
    require_apart(folder, brought)
    out = folder.resolve()
    with _refusals(out), filled(out, last=LAST, mode=_FOLDER) as work:
        _fill(work, files, brought)
        _let_all_read(work)


@contextmanager
def _refusals(out: Path) -> Generator[None]:
    """FolderUnwritable, with a remedy, for what the disk refuses of this folder alone."""
    try:
        yield
    except OSError as error:
        named: str | bytes | os.PathLike[str] | int | None = error.filename  # int: a descriptor
        path = None if named is None or isinstance(named, int) else Path(os.fsdecode(named))
        of_out = path is not None and (
            path.is_relative_to(out) or out.is_relative_to(path) or path.is_relative_to(DESCRIPTORS)
        )
        remedies = FULL_DISK | REFUSED if of_out else FULL_DISK
        if error.errno not in remedies:
            raise
        said = f"cannot write {out} ({error.strerror}); {remedies[error.errno]}"
        raise FolderUnwritable(error.errno, f"{said}{_left(out)}") from error


def _left(out: Path) -> str:
    """What is there behind an error: it may have come when all had its name."""
    if out.is_dir() and any(out.iterdir()):
        return f"; {out} holds something, look what"
    return ", nothing was left behind"


def _fill(work: Path, files: Mapping[str, bytes], brought: Brought) -> None:
    for name, content in files.items():
        _write(work / name, content)
    for name in TAKEN:
        (work / name).mkdir(exist_ok=True)
    if brought.wheel is not None:
        shutil.copyfile(brought.wheel, work / "wheel" / WHEEL)
    if brought.wheels is not None:
        _write_wheels(work / "wheels", brought.wheels)
    if brought.artifact is not None:
        _write_artifact(work / "artifact", brought.artifact)
    if brought.records is not None:
        _write_records(work / "records", brought.records)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_wheels(into: Path, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file() or path.suffix != ".whl":
            raise WrongSource(
                f"{path} is no file of a package (NAME.whl), and the build takes no others; take it"
                f" out of {folder}"
            )
        shutil.copyfile(path, into / path.name)


def _write_artifact(into: Path, folder: Path) -> None:
    """The files that the manifest names, from the bytes that were compared with it."""
    reader = ArtifactReader(folder)
    reader.check()
    for name in reader.manifest.files:
        _write(into / name, reader.read(name))
    _write(into / MANIFEST, read_bounded(folder / MANIFEST, MANIFEST_LIMIT))
    if ArtifactReader(into).manifest.digest != reader.manifest.digest:
        raise ArtifactError(f"{folder} changes while it is read; give one that nobody writes")
    if (note := reader.note()) is not None:
        moved = msgspec.structs.replace(note, path=MOUNTED)
        _write(into / CHECKPOINT, msgspec.json.encode(moved))


def _write_records(into: Path, folder: Path) -> None:
    """Those that a store reads, as it writes them."""
    if not any(record_files(folder)):
        raise WrongSource(f"{folder} holds no records (XX/KEY.jsonl); give the folder that does")
    RecordStore((into,)).merge(folder)


def _let_all_read(work: Path) -> None:
    """The image's user is none of this machine's, and may be another than who builds.

    The folder itself is private, so that all in it was made here, and goes into no image.
    """
    for path in work.rglob("*"):
        path.chmod(_FOLDER if path.is_dir() else _FILE)
