"""Reads an artifact: every file against its digest, every structure against its schema."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec

from lostwax.ir.contract.artifact import CHECKPOINT, OUTSIDE, SCHEMA, CheckpointNote, Manifest
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.program import Program
from lostwax.ir.contract.weights import WeightPlan

T = TypeVar("T")

MANIFEST_LIMIT = 64 << 20  # bytes; a 61-layer artifact's manifest is under one MiB


class ArtifactError(ValueError):
    """The artifact is damaged, foreign or newer; the message names the file and what to do."""


class _Header(msgspec.Struct):
    schema: int


class ArtifactReader:
    """One artifact folder, opened and checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = self._open()

    def _open(self) -> Manifest:
        path = self.folder / "manifest.json"
        if not path.is_file():
            raise ArtifactError(
                f"{self.folder} has no manifest.json, so it is no artifact; make one with"
                " `lostwax compile CHECKPOINT --target cpu -o DIR`"
            )
        if path.stat().st_size > MANIFEST_LIMIT:
            raise ArtifactError(f"{path} is over {MANIFEST_LIMIT} bytes: not a lostwax manifest")
        data = path.read_bytes()
        header = self._decode(data, _Header, "manifest.json")
        if header.schema > SCHEMA:
            raise ArtifactError(
                f"{self.folder} was written by a newer lostwax (schema {header.schema}, this one"
                f" reads {SCHEMA}); upgrade lostwax or recompile"
            )
        if header.schema < SCHEMA:
            raise ArtifactError(
                f"{self.folder} was written by an older lostwax (schema {header.schema}, this one"
                f" reads {SCHEMA}); recompile it"
            )
        manifest = self._decode(data, Manifest, "manifest.json")
        # Over what is written, not over the structure: a lostwax with more fields reads it too.
        unsigned = self._decode(data, dict[str, object], "manifest.json") | {"digest": ""}
        if hashlib.sha256(canonical(unsigned)).hexdigest() != manifest.digest:
            raise ArtifactError(f"{path} does not match its own digest: recompile the artifact")
        return manifest

    def _decode(self, data: bytes, kind: type[T], name: str) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise ArtifactError(
                f"{self.folder / name} is damaged ({error}): recompile the artifact"
            ) from error

    def read(self, name: str) -> bytes:
        """One file's bytes, verified; ArtifactError where it is missing or altered."""
        wanted = self.manifest.files.get(name)
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ArtifactError(f"{self.folder} names {name!r}, outside itself: do not use it")
        path = self.folder / name
        if wanted is None or not path.is_file():
            raise ArtifactError(f"{self.folder} lacks {name}: recompile the artifact")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != wanted:
            raise ArtifactError(f"{path} does not match its digest: recompile the artifact")
        return data

    def verify(self) -> None:
        """Check every file that serving reads: a damaged program must not surface mid-answer."""
        names = [ref.file for ref in self.manifest.programs]
        names += [f"kernels/{kernel.binary}" for kernel in self.manifest.kernels]
        names += [
            name for name in ("weights.json", "tokenizer.json") if name in self.manifest.files
        ]
        for name in names:
            self.read(name)

    def structure(self, name: str, kind: type[T]) -> T:
        """One verified JSON file as a contract structure."""
        return self._decode(self.read(name), kind, name)

    def program(self, name: str) -> Program:
        """One verified program."""
        return self.structure(name, Program)

    def weight_plan(self) -> WeightPlan:
        """The verified weight plan."""
        return self.structure("weights.json", WeightPlan)

    def checkpoint(self, override: Path | None) -> Path:
        """Where the checkpoint lies: as given, else as noted when compiling."""
        if override is not None:
            return override
        note = self.note()
        if note is None:
            raise ArtifactError(
                f"{self.folder} does not say where its checkpoint lies; give --checkpoint DIR"
            )
        return Path(note.path)

    def note(self) -> CheckpointNote | None:
        """What was noted of the checkpoint when compiling, None for an artifact without one."""
        note = self.folder / CHECKPOINT
        if not note.is_file():
            return None
        return self._decode(note.read_bytes(), CheckpointNote, CHECKPOINT)

    def verify_all(self) -> None:
        """Check every file of the folder, and that it holds no others."""
        for name in self.manifest.files:
            self.read(name)
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if not path.is_dir() and name not in OUTSIDE and name not in self.manifest.files:
                raise ArtifactError(f"{path} is no part of the artifact: remove it, or recompile")
