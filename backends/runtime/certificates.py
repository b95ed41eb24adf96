"""Reads and writes `certificates.json`: what this machine has proven of artifacts. Runs nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.artifact import CERTIFICATES
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.probe import Certificates

SCHEMA = 1
"""Version of the file; another one is measured again."""


def places(reader: ArtifactReader, folder: Path | None) -> tuple[Path, ...]:
    """Files that may hold the evidence: in the folder that was given, else beside the artifact."""
    given = () if folder is None else (folder / f"{reader.manifest.digest}.json",)
    return (*given, reader.folder / CERTIFICATES)


def read_certificates(path: Path) -> Certificates | None:
    """What a file holds, None where it is missing, damaged or of another schema."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Certificates)
    except (OSError, msgspec.DecodeError):
        return None
    return found if found.schema == SCHEMA else None


def write_certificates(certificates: Certificates, paths: tuple[Path, ...]) -> Path | None:
    """Write the first file that can be written, whole or not at all."""
    return next((path for path in paths if _written(certificates, path)), None)


def _written(certificates: Certificates, path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(canonical(certificates))
        Path(name).chmod(0o644)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        return False
    return True
