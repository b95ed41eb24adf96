"""Decides at boot whether an artifact may serve here: runs its golden probes once a device.

The evidence is kept in `certificates.json`, outside the artifact's digest. It holds for one
artifact, one device and one state of the host functions; anything else runs the probes again.
What the programs run and no probe does counts as unproven: an artifact cannot leave a probe out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import msgspec

from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.certificates import (
    certificates_file,
    read_certificates,
    write_certificates,
)
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.prove_step import prove_step
from lostwax.backends.runtime.require_packages import installed_version
from lostwax.backends.runtime.run_probe import run_probe
from lostwax.ir.contract.check_program import code_of
from lostwax.ir.contract.foreign_file import BadFile
from lostwax.ir.contract.one_line import one_line
from lostwax.ir.contract.probe import PROBES, STEP_EVIDENCE, Certificates, Evidence, Probe
from lostwax.ir.contract.program import launches_of

EXCHANGES = "lostwax.backends.portable.kernels.collectives:"
"""Host functions that no probe can run: what ranks exchange means nothing on one of them."""


class Unproven(RuntimeError):
    """Some of the artifact's lowerings never ran on this device; the message names one."""


@dataclass(frozen=True, slots=True)
class BootReport:
    """What is known of an artifact on this device.

    `unprobed` names code that programs run and no probe does, with a program that runs it. `ran`
    probes ran now (0: all evidence was read) in `seconds`; `kept` is the file that holds the
    evidence, None where none could be written. `damage` says what was wrong with the file before.
    """

    certificates: Certificates
    unprobed: Mapping[str, str]
    ran: int
    seconds: float
    kept: Path | None
    damage: str | None = None

    @property
    def unproven(self) -> tuple[Evidence, ...]:
        """Evidence of what never ran here."""
        return tuple(e for e in self.certificates.evidence.values() if e.state != "executed")

    def __str__(self) -> str:
        total, open_ = len(self.certificates.evidence), len(self.unproven)
        kept = self.kept or "not kept: it cannot be written there; give --certificates DIR"
        how = f"{self.ran} probes ran" if self.ran else "read"
        said = (
            f"{total - open_} of {total} lowerings executed ({how}, {self.seconds:.2f} s; {kept})"
        )
        if self.damage:
            said += f"; {self.damage}: what it proved was measured again"
        if self.unprobed:
            said += f"; no probe ran {_first(self.unprobed)}"
        return said


def _first(unprobed: Mapping[str, str]) -> str:
    """How much there is, and one of it."""
    code, program = next(iter(unprobed.items()))
    more = f" and {len(unprobed) - 1} more" if len(unprobed) > 1 else ""
    return f"{code} (in {program}){more}"


RUNS_PROBES = ("lostwax.backends.runtime", "lostwax.ir.contract", "lostwax.ir.reference")
"""Packages that read probes, bind launches and compare: evidence of other code proves nothing."""


def code_digest(packages: tuple[str, ...]) -> str:
    """sha256 over the modules of `packages`, which host calls may name, and of `RUNS_PROBES`."""
    found = hashlib.sha256()
    for package in (*packages, *RUNS_PROBES):
        spec = find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                name = f"{package} {path.relative_to(folder)}"
                found.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def device_and_libraries(reader: ArtifactReader, driver: Driver) -> str:
    """The driver's fingerprint, and the versions of packages that the artifact's launches call."""
    called = (f", {name} {installed_version(name)}" for name in sorted(reader.manifest.requires))
    return driver.fingerprint + "".join(called)


def _evidence(probe: Probe, driver: Driver, file: Path) -> Evidence:
    what = f"{probe.lowering} ({' + '.join(probe.ops)})"
    if probe.refusal:
        return Evidence(what=what, state="compiled", reason=probe.refusal)
    try:
        return msgspec.structs.replace(run_probe(probe, driver), what=what)
    except ArtifactError as error:
        raise ArtifactError(f"{file}: the probe of {probe.lowering}: {error}") from error


def _unprobed(reader: ArtifactReader, certificates: Certificates) -> dict[str, str]:
    """Code that programs run and no executed evidence covers, with the first such program."""
    covered = {
        code for e in certificates.evidence.values() if e.state == "executed" for code in e.ran
    }
    found: dict[str, str] = {}
    for ref in reader.manifest.programs:
        for launch in launches_of(reader.program(ref.file)):
            code = code_of(launch)
            if code not in covered and not code.startswith(EXCHANGES):
                found.setdefault(code, ref.file)
    return found


def check_boot(
    reader: ArtifactReader, driver: Driver, packages: tuple[str, ...], folder: Path | None = None
) -> BootReport:
    """The evidence for this artifact on this device.

    Raises WrongKernel at the first wrong one, ArtifactError where a probe is none.
    """
    start = time.perf_counter()
    bare = Certificates(
        artifact=reader.manifest.digest,
        device=device_and_libraries(reader, driver),
        code=code_digest(packages),
        evidence={},
    )
    path = certificates_file(reader, folder)
    found, damage = None, None
    try:
        found = read_certificates(path)
    except BadFile as error:
        damage = str(error)
    ran = 0
    if found is None or msgspec.structs.replace(found, evidence={}) != bare:
        probes = reader.probes().probes
        file = reader.folder / PROBES
        evidence = {probe.id: _evidence(probe, driver, file) for probe in probes}
        if reader.manifest.step_on_device:
            evidence[STEP_EVIDENCE] = prove_step(reader, driver)
        found = msgspec.structs.replace(bare, evidence=evidence)
        ran = sum(e.state == "executed" for e in evidence.values())
        kept = path if write_certificates(found, path) else None
    else:
        kept = path
    unprobed = _unprobed(reader, found)
    return BootReport(found, unprobed, ran, time.perf_counter() - start, kept, damage)


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
    path = certificates_file(reader, folder)
    kept = path if write_certificates(made, path) else None
    return replace(report, certificates=made, unprobed=_unprobed(reader, made), kept=kept)


def require_proven(report: BootReport) -> None:
    """Raise Unproven where something never ran on this device."""
    remedy = "or serve it as it is with --allow-compiled"
    if report.unproven:
        first = report.unproven[0]
        raise Unproven(
            f"{len(report.unproven)} of {len(report.certificates.evidence)} lowerings of this"
            f" artifact were only compiled, such as {one_line(first.what)}:"
            f" {one_line(first.reason, 400)}; {remedy}"
        )
    if report.unprobed:
        raise Unproven(
            f"this artifact runs code that none of its probes does: {_first(report.unprobed)};"
            f" recompile it, {remedy}"
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
