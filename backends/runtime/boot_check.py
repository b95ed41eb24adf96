"""Decides at boot whether an artifact may serve here: runs its golden probes once a device.

The evidence is kept in `certificates.json`, outside the artifact's digest. It holds for one
artifact, one device and one state of the host functions; anything else runs the probes again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.certificates import (
    SCHEMA,
    places,
    read_certificates,
    write_certificates,
)
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.run_probe import run_probe
from lostwax.ir.contract.probe import PROBES, Certificates, Evidence, Probe, Probes


class Unproven(RuntimeError):
    """Some of the artifact's lowerings never ran on this device; the message names one."""


@dataclass(frozen=True, slots=True)
class BootReport:
    """What is known of an artifact on this device.

    `ran` probes ran now (0: all evidence was read) in `seconds`; `kept` is the file that holds the
    evidence, None where none could be written.
    """

    certificates: Certificates
    ran: int
    seconds: float
    kept: Path | None

    @property
    def unproven(self) -> tuple[Evidence, ...]:
        """Evidence of what never ran here."""
        return tuple(e for e in self.certificates.evidence.values() if e.state != "executed")

    def __str__(self) -> str:
        total, open_ = len(self.certificates.evidence), len(self.unproven)
        kept = self.kept or "not kept: the folder is read-only, and no --certificates DIR was given"
        how = f"{self.ran} probes ran" if self.ran else "read"
        return (
            f"{total - open_} of {total} lowerings executed ({how}, {self.seconds:.2f} s; {kept})"
        )


def code_digest(packages: tuple[str, ...]) -> str:
    """sha256 over the modules of the packages that host calls may name."""
    found = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                name = f"{package} {path.relative_to(folder)}"
                found.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def _evidence(probe: Probe, driver: Driver) -> Evidence:
    what = f"{probe.lowering} ({' + '.join(probe.ops)})"
    if probe.refusal:
        return Evidence(what=what, state="compiled", reason=probe.refusal)
    return msgspec.structs.replace(run_probe(probe, driver), what=what)


def check_boot(
    reader: ArtifactReader, driver: Driver, packages: tuple[str, ...], folder: Path | None = None
) -> BootReport:
    """The evidence for this artifact on this device. Raises WrongKernel at the first wrong one."""
    start = time.perf_counter()
    bare = Certificates(
        schema=SCHEMA,
        artifact=reader.manifest.digest,
        device=driver.fingerprint,
        code=code_digest(packages),
        evidence={},
    )
    paths = places(reader, folder)
    for path in paths:
        found = read_certificates(path)
        if found is not None and msgspec.structs.replace(found, evidence={}) == bare:
            return BootReport(found, 0, time.perf_counter() - start, path)
    probes = reader.structure(PROBES, Probes).probes
    evidence = {probe.id: _evidence(probe, driver) for probe in probes}
    made = msgspec.structs.replace(bare, evidence=evidence)
    ran = sum(not probe.refusal for probe in probes)
    kept = write_certificates(made, paths)
    return BootReport(made, ran, time.perf_counter() - start, kept)


def add_evidence(
    reader: ArtifactReader,
    driver: Driver,
    packages: tuple[str, ...],
    proven: Mapping[str, Evidence],
    folder: Path | None = None,
) -> BootReport:
    """`check_boot`, and what else was proven on this device of what no probe could show."""
    report = check_boot(reader, driver, packages, folder)
    known = report.certificates.evidence
    more = {k: e for k, e in proven.items() if k in known and known[k].state != "executed"}
    if not more:
        return report
    made = msgspec.structs.replace(report.certificates, evidence=known | more)
    kept = write_certificates(made, places(reader, folder))
    return BootReport(made, report.ran, report.seconds, kept)


def require_proven(report: BootReport) -> None:
    """Raise Unproven where something never ran on this device."""
    if report.unproven:
        first = report.unproven[0]
        raise Unproven(
            f"{len(report.unproven)} of {len(report.certificates.evidence)} lowerings of this"
            f" artifact were only compiled, such as {first.what}: {first.reason}; or serve it as it"
            " is with --allow-compiled"
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """What `load` asks before it loads weights: `certificates` is a folder for the evidence."""

    certificates: Path | None
    allow_compiled: bool
    say: Callable[[str], None]

    def admit(self, reader: ArtifactReader, driver: Driver, packages: tuple[str, ...]) -> None:
        """Raise WrongKernel, or Unproven unless that is allowed."""
        report = check_boot(reader, driver, packages, self.certificates)
        self.say(str(report))
        if not self.allow_compiled:
            require_proven(report)
