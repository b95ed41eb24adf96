"""Reads an artifact: every file against its digest, every structure against its schema and its
neighbours. What leaves here lies within its buffers and names only what is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec

from lostwax.backends.runtime.whole_folder import recover
from lostwax.ir.contract.artifact import (
    CHECKPOINT,
    MANIFEST,
    OUTSIDE,
    SCHEMA,
    CheckpointNote,
    Manifest,
    ProgramRef,
)
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.check_manifest import KERNELS, check_manifest
from lostwax.ir.contract.check_probes import check_choices, check_probes
from lostwax.ir.contract.check_program import ProgramCheck, symbols_of
from lostwax.ir.contract.check_weights import check_weights, weight_sizes
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.foreign_file import (
    DAMAGE,
    BadFile,
    MissingFile,
    decoded,
    read_bounded,
    reason,
)
from lostwax.ir.contract.one_line import one_line
from lostwax.ir.contract.probe import PROBES, Probes
from lostwax.ir.contract.program import Program
from lostwax.ir.contract.weights import WeightPlan

T = TypeVar("T")

WEIGHTS = "weights.json"
CHOICES = "choices.json"
TOKENIZER = "tokenizer.json"

MANIFEST_LIMIT = 64 << 20  # bytes; a 61-layer artifact's manifest is under one MiB
NOTE_LIMIT = 16 << 20  # bytes; checkpoint.json has a line a checkpoint file
FILE_LIMIT = 1 << 30  # bytes of any other file; a 61-layer artifact's largest has 40 MB


class ArtifactError(ValueError):
    """The artifact is damaged, foreign or newer; the message names the file and what to do."""


class _Header(msgspec.Struct):
    schema: int


class ArtifactReader:
    """One artifact folder, opened and checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: set[tuple[str, type]] = set()
        self.manifest = self._open()

    def _open(self) -> Manifest:
        path = self.folder / MANIFEST
        recover(self.folder)
        try:
            content = read_bounded(path, MANIFEST_LIMIT)
        except MissingFile as error:
            raise ArtifactError(
                f"{self.folder} has no {MANIFEST}, so it is no artifact; make one with"
                " `lostwax compile CHECKPOINT --target cpu -o DIR`"
            ) from error
        except BadFile as error:
            raise ArtifactError(f"{error}: no manifest of lostwax's; recompile") from error
        header = self._decode(content, _Header, MANIFEST)
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
        manifest = self._decode(content, Manifest, MANIFEST)
        with self._blaming(MANIFEST):
            # Over what is written, not over the structure: a lostwax with more fields reads it too.
            unsigned = msgspec.json.decode(content, type=dict[str, object]) | {"digest": ""}
            digest = hashlib.sha256(canonical(unsigned)).hexdigest()
        if digest != manifest.digest:
            raise ArtifactError(f"{path} does not match its own digest: recompile the artifact")
        with self._blaming(MANIFEST):
            check_manifest(manifest)
        return manifest

    @contextmanager
    def _blaming(self, name: str) -> Generator[None]:
        """Whatever goes wrong over a file's structure is an ArtifactError that names the file."""
        try:
            yield
        except ArtifactError:
            raise
        except DAMAGE as error:
            raise ArtifactError(
                f"{self.folder / name} is damaged or foreign ({reason(error)}): recompile the"
                " artifact"
            ) from error

    def _decode(self, content: bytes, kind: type[T], name: str) -> T:
        try:
            return decoded(content, kind, self.folder / name)
        except BadFile as error:
            raise ArtifactError(f"{error}: recompile the artifact") from error

    def read(self, name: str) -> bytes:
        """One file's bytes, verified; ArtifactError where it is missing or altered."""
        wanted = self.manifest.files.get(name)  # decoding saw to it that names stay inside
        if wanted is None:
            raise ArtifactError(f"{self.folder} lacks {one_line(name)}: recompile the artifact")
        path = self.folder / name
        try:
            content = read_bounded(path, FILE_LIMIT)
        except MissingFile as error:
            raise ArtifactError(f"{self.folder} lacks {name}: recompile the artifact") from error
        except BadFile as error:
            raise ArtifactError(f"{error}: recompile the artifact") from error
        if hashlib.sha256(content).hexdigest() != wanted:
            raise ArtifactError(f"{path} does not match its digest: recompile the artifact")
        return content

    def text(self, name: str, read: Callable[[str], T]) -> T:
        """What `read` makes of one verified file's text; its errors become ArtifactError."""
        content = self.read(name)
        with self._blaming(name):
            return read(content.decode())

    def kernel(self, binary: str) -> bytes:
        """A kernel's bytes, the very ones that were compared with the digest."""
        return self.read(f"{KERNELS}/{binary}")

    def verify(self) -> None:
        """Compare every file with its digest: damage shows, malice does not."""
        for name in self.manifest.files:
            self.read(name)
        self.note()

    def check(self) -> None:
        """Check every file that serving reads: it is whole, and every structure fits the others.

        So what is wrong shows before anything runs, never in the middle of an answer.
        """
        self.weight_plan()
        self.probes()
        for ref in self.manifest.programs:
            self.program(ref.file)
        for kernel in self.manifest.kernels:
            self.kernel(kernel.binary)
        if TOKENIZER in self.manifest.files:
            self.read(TOKENIZER)
        self.note()

    def structure(self, name: str, kind: type[T]) -> T:
        """One verified JSON file as a contract structure that is consistent with the manifest."""
        found = self._decode(self.read(name), kind, name)
        if (name, kind) not in self._checked:  # what has this digest does not change
            with self._blaming(name):
                self._check(found, name)
            self._checked.add((name, kind))
        return found

    def _check(self, found: object, name: str) -> None:
        match found:
            case Program():
                self._check_program(found, self._ref(name))
            case WeightPlan():
                check_weights(found, self.manifest.weight_bytes, self.manifest.world_size)
            case Probes():
                check_probes(found, symbols_of(self.manifest), self.manifest)
            case Choices():
                check_choices(found, [Path(ref.file).stem for ref in self.manifest.programs])
            case _:
                return

    def _ref(self, file: str) -> ProgramRef:
        found = next((ref for ref in self.manifest.programs if ref.file == file), None)
        if found is None:
            raise ArtifactError(f"{self.folder} lists no program {one_line(file)}: recompile it")
        return found

    @cached_property
    def _check_program(self) -> ProgramCheck:
        return ProgramCheck(self.manifest, weight_sizes(self.weight_plan()))

    def program(self, name: str) -> Program:
        """One verified program."""
        return self.structure(name, Program)

    def weight_plan(self) -> WeightPlan:
        """The verified weight plan."""
        return self.structure(WEIGHTS, WeightPlan)

    def probes(self) -> Probes:
        """The verified golden probes."""
        return self.structure(PROBES, Probes)

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
        try:
            content = read_bounded(self.folder / CHECKPOINT, NOTE_LIMIT)
        except MissingFile:
            return None
        except BadFile as error:
            raise ArtifactError(f"{error}: recompile the artifact") from error
        return self._decode(content, CheckpointNote, CHECKPOINT)

    def verify_all(self) -> None:
        """Check every file of the folder, and that it holds no others."""
        self.verify()
        self.check()
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if not path.is_dir() and name not in OUTSIDE and name not in self.manifest.files:
                raise ArtifactError(f"{path} is no part of the artifact: remove it, or recompile")
