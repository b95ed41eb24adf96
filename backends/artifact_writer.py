"""Writes an artifact folder: all of it or nothing. Knows files and digests, no graph."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.canonical import canonical

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint.json"
"""Where the checkpoint lies on this machine: outside the digest."""


class ArtifactExists(ValueError):
    """The output folder holds something that is no artifact."""


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
        if path.is_file() and path.name not in (MANIFEST, CHECKPOINT)
    }
    unsigned = msgspec.structs.replace(manifest, files=files, digest="")
    digest = hashlib.sha256(canonical(unsigned)).hexdigest()
    sealed = msgspec.structs.replace(unsigned, digest=digest)
    write(folder, MANIFEST, canonical(sealed))
    return sealed


def require_replaceable(out: Path) -> None:
    """Raise ArtifactExists where `out` is a file, or a full folder that is no artifact.

    So nothing that is not an artifact is ever replaced.
    """
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactExists(f"{out} exists and is no artifact; give another -o or remove it")


@contextmanager
def atomic_folder(out: Path) -> Generator[Path]:
    """A folder beside `out` that takes its place when the block ends well, and else vanishes.

    Raises ArtifactExists as `require_replaceable` does.
    """
    require_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield work
        work.chmod(0o755)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
            os.replace(out, old / "artifact")
            os.replace(work, out)
            shutil.rmtree(old)
        else:
            os.replace(work, out)
    finally:
        if work.exists():
            shutil.rmtree(work)
