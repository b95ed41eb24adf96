"""The model that is used where none is named: its weights, and its artifact in the user's cache.

The artifact's folder is named by everything that decides its content, so that neither an upgrade
nor other weights are ever served with an old one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import lostwax
from lostwax.backends.runtime.say import say
from lostwax.backends.runtime.whole_folder import require_removable
from lostwax.cli.compile_apart import CompileFailed, compile_apart
from lostwax.cli.default_target import DEFAULT_TARGET

NAME = "lostwax-tiny"
"""What the default model is called by servers."""
FAST_DTYPES = {name: "fp32" for name in ("cpu", "cpu-x86-64-v3", "cpu-x86-64-v4", "cpu-aarch64")}
"""By target, what the default model is compiled in, if not in bf16: the CPU's own kernels are fp32,
so that this is exact and faster there."""
MAX_KEPT = 8
"""Artifacts kept in the cache; the one that was not used for longest goes first."""

REMOVED = ".removed."
"""Begins the name of what is being removed from the cache; the next compile finishes it."""


class NoDefaultModel(RuntimeError):
    """This installation lacks the default model's weights."""


class NoCache(OSError):
    """The default model's artifact cannot be kept; the message names the way out."""


def default_checkpoint() -> Path:
    """The folder of the default model's weights, in a checkout and in an installed package."""
    folder = Path(lostwax.__file__).parent / "models" / "tiny" / "weights"
    if not (folder / "config.json").is_file():
        raise NoDefaultModel(
            f"this installation lacks the default model ({folder}); name the artifact or the"
            " checkpoint to use, or install lostwax from a whole source tree"
        )
    return folder


def default_artifact(
    *,
    cache: Path | None = None,
    target: str = DEFAULT_TARGET,
    dtype: str | None = None,
    drafts: int = 0,
) -> Path:
    """The default model's artifact, compiled when it is first asked for.

    It must be loaded with `default_checkpoint()` as its checkpoint: another installation of the
    same lostwax may have compiled it. Raises NoDefaultModel, NoCache.
    """
    dtype = dtype or FAST_DTYPES.get(target, "bf16")
    checkpoint = default_checkpoint()
    folder = cache_folder(cache, os.environ)
    prefix = f"{NAME}-{target}-{dtype}{f'-drafts{drafts}' if drafts else ''}"
    artifact = folder / f"{prefix}-{_content(checkpoint)}"
    if _fault(artifact) is not None:
        _require_writable(folder)
        with _alone(folder):
            fault = _fault(artifact)
            if fault is not None:
                _clear(artifact, fault)
                say(f"compiling {NAME} to {artifact} (once)")
                _compile(checkpoint, artifact, target, dtype, drafts)
                _remove_oldest(folder, artifact)
    _touch(artifact)
    return artifact


def cache_folder(given: Path | None, environment: Mapping[str, str]) -> Path:
    """Where artifacts are kept: as given, else lostwax's part of the user's cache (XDG)."""
    if given is not None:
        return given.absolute()
    base = environment.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification ignores others
        return Path(base, "lostwax")
    try:
        return Path.home() / ".cache" / "lostwax"
    except RuntimeError as error:
        raise NoCache(
            "there is no home folder to keep the compiled default model in; give --cache DIR"
        ) from error


def _content(checkpoint: Path) -> str:
    """Names what the artifact is made of: the checkpoint's files and the code that compiles."""
    from lostwax.backends.runtime.checkpoint_content import content_digest

    found = hashlib.sha256(lostwax.__version__.encode())
    for path in sorted(checkpoint.iterdir()):
        # Of the shards header and samples, as the artifact itself notes them.
        sampled = path.suffix == ".safetensors"
        digest = content_digest(path) if sampled else _sha256(path)
        found.update(f"{path.name} {digest}\n".encode())
    package = Path(lostwax.__file__).parent
    for path in _compiler_files(package):
        found.update(f"{path.relative_to(package)} {_sha256(path)}\n".encode())
    return found.hexdigest()[:16]


def _compiler_files(package: Path) -> Iterator[Path]:
    """The code that decides what is compiled: in a checkout it changes between versions."""
    for room in ("backends", "frontend", "ir"):
        paths = (package / room).rglob("*")
        yield from sorted(p for p in paths if p.suffix in (".py", ".cpp", ".cu", ".h"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fault(artifact: Path) -> str | None:
    """Why it cannot be used, None where it is there and whole: a cache mends itself."""
    from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader

    try:
        ArtifactReader(artifact).verify()
    except ArtifactError as error:
        return str(error)
    return None


def _clear(artifact: Path, fault: str) -> None:
    """Make room: whatever lies there is a cache's, and of no use."""
    for left in artifact.parent.glob(f"{REMOVED}*"):
        shutil.rmtree(left, ignore_errors=True)
    if os.path.lexists(artifact):
        say(f"{fault} (a cache mends itself: this is done now)")
        try:
            _discard(artifact)
        except OSError as error:
            raise _unwritable(artifact.parent, error.strerror or str(error)) from error


def _discard(artifact: Path) -> None:
    """Remove it under another name, so that no half of it ever has its own. Raises HoldsMount."""
    require_removable(artifact)
    grave = Path(tempfile.mkdtemp(prefix=REMOVED, dir=artifact.parent))
    os.rename(artifact, grave / artifact.name)
    shutil.rmtree(grave, ignore_errors=True)


def _require_writable(folder: Path) -> None:
    """Before seconds go into a compile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise _unwritable(folder, error.strerror) from error
    if not writable:
        raise _unwritable(folder, "no permission, or a read-only file system")


def _unwritable(folder: Path, reason: str | None) -> NoCache:
    return NoCache(
        f"the compiled default model cannot be kept in {folder} ({reason}); give --cache DIR"
    )


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Once no other process compiles into the cache; a killed one holds no lock."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process compiles now: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(checkpoint: Path, artifact: Path, target: str, dtype: str, drafts: int) -> None:
    try:
        compile_apart(checkpoint, artifact, target=target, dtype=dtype, drafts=drafts)
    except CompileFailed as error:
        if error.disk is None:
            raise
        raise _unwritable(artifact.parent, error.disk) from error


def _touch(artifact: Path) -> None:
    """Note that it was used, where that can be noted."""
    try:
        os.utime(artifact)
    except OSError:
        return


def _remove_oldest(folder: Path, kept: Path) -> None:
    others = [p for p in folder.glob(f"{NAME}-*") if p != kept and (p / "manifest.json").is_file()]
    others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    for path in others[MAX_KEPT - 1 :]:
        with suppress(OSError):
            _discard(path)
