"""Reads and writes `certificates.json`: what this machine has proven of artifacts. Runs nothing."""

from __future__ import annotations

from pathlib import Path

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.whole_file import write_whole
from lostwax.ir.contract.artifact import CERTIFICATES
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.foreign_file import MissingFile, decoded, read_bounded
from lostwax.ir.contract.probe import CERTIFICATES_SCHEMA, Certificates

MAX_BYTES = 64 << 20
"""Of one file; that of a 61-layer artifact has under 100 KB."""


def certificates_file(reader: ArtifactReader, folder: Path | None) -> Path:
    """The file that holds the evidence: in the folder that was given, else beside the artifact.

    Where a folder is given, what lies beside the artifact counts for nothing: it may have come
    with it.
    """
    if folder is not None:
        return folder / f"{reader.manifest.digest}.json"
    return reader.folder / CERTIFICATES


def read_certificates(path: Path) -> Certificates | None:
    """What a file holds, None where it is missing or of another schema; BadFile where damaged."""
    try:
        content = read_bounded(path, MAX_BYTES)
    except MissingFile:
        return None
    found = decoded(content, Certificates, path)
    return found if found.schema == CERTIFICATES_SCHEMA else None


def write_certificates(certificates: Certificates, path: Path) -> bool:
    """Write the file, whole or not at all; False where it cannot be written."""
    try:
        write_whole(path, canonical(certificates))
    except OSError:
        return False
    return True
