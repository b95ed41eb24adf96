"""Certifies an artifact's choices, on its own device or interpreted, beside the fp64 reference.

Uses the artifact's graphs and binaries as they are: no checkpoint, no frontend, no compiler.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lostwax.backends.gpu_kernels.interpreter import InterpretingDriver, NotInterpretable
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.proof.attainable import MAX_INTERPRETED_ROWS, is_interpreted
from lostwax.backends.proof.blame_artifact import blaming
from lostwax.backends.proof.chosen_candidates import chosen_candidates
from lostwax.backends.proof.inputs import reads_positions_alone
from lostwax.backends.proof.interpret_step import interpret_step
from lostwax.backends.proof.make_probes import make_probe
from lostwax.backends.proof.run_alone import Alone, launches_alone
from lostwax.backends.proof.step_cases import StepCase, far_case, step_case
from lostwax.backends.proof.taken_kernels import TakenKernels
from lostwax.backends.proof.tool_versions import compiled_with
from lostwax.backends.records.record_key import record_key
from lostwax.backends.registry import Backend
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.boot_check import (
    BootReport,
    add_evidence,
    code_digest,
    device_and_libraries,
)
from lostwax.backends.runtime.compare_outputs import NONE, Errors, Mismatch
from lostwax.backends.runtime.driver import Driver, no_kernels
from lostwax.backends.runtime.error_causes import with_causes
from lostwax.backends.runtime.require_functions import require_functions
from lostwax.backends.runtime.require_packages import require_packages
from lostwax.backends.runtime.require_target import require_target
from lostwax.backends.runtime.run_preflight import run_preflight
from lostwax.backends.runtime.run_probe import WrongKernel, measure
from lostwax.backends.runtime.say import say
from lostwax.backends.runtime.sku import sku_of
from lostwax.ir.contract.canonical import canonical_json
from lostwax.ir.contract.check_program import code_of
from lostwax.ir.contract.choice import Choices, RegionChoice
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.probe import Evidence
from lostwax.ir.contract.program import Bucket, Launch
from lostwax.ir.contract.record import Certificate, Record, RecordKey, State
from lostwax.ir.contract.step_layout import STEP_OP
from lostwax.ir.contract.target import Target

MAX_PAGES = 4096
"""Of all requests of a step: what their caches hold is drawn, and lies on the device."""
SEEDS = (0, 1)
"""A full step, and one with padding."""


@dataclass(frozen=True, slots=True)
class Certified:
    """One lowering at one size: its certificate and record, or what was wrong with it. What is no
    lowering has no record. `left_out` says why nobody tried to run it."""

    program: str
    lowering: str
    ops: tuple[str, ...]
    certificate: Certificate | None
    error: str | None
    kernels: tuple[str, ...]
    probe: str
    """The golden probe of the same choice, empty where there is none."""
    record: Record | None = None
    ran: tuple[str, ...] = ()
    """What code ran (`check_program.code_of`)."""
    left_out: str | None = None


def _driver(
    reader: ArtifactReader, backend: Backend, warn: Callable[[str], None] | None = None
) -> Driver:
    """The device's driver; `warn` hears what its libraries are, as it does where one serves."""
    require_packages(reader.manifest.requires)
    functions = require_functions(reader, backend.kernels)
    compiled = {k.binary: k for k in reader.manifest.kernels}
    driver: Driver = backend.load(backend.driver)(reader.manifest.target, reader.kernel, compiled)
    if warn is not None:
        run_preflight(backend, reader.manifest, functions, warn)
    return driver


def _interpreter(
    target: Target, sources: Mapping[str, KernelSource], backend: Backend
) -> InterpretingDriver:
    driver = InterpretingDriver(target, no_kernels, {})
    if backend.twins is not None:
        driver.twins = backend.load(backend.twins)()
    driver.sources, driver.packages = sources, backend.kernels
    return driver


def _backend(reader: ArtifactReader) -> Backend:
    found = require_target(reader.folder, reader.manifest.target)
    if not found.executes:
        raise ArtifactError(
            f"target {reader.manifest.target.name} executes nothing, so nothing can be certified"
        )
    return found


def certify_artifact(
    artifact: Path,
    own_only: bool = False,
    interpret: bool = False,
    warn: Callable[[str], None] = say,
) -> Iterator[Certified]:
    """Run every chosen lowering once for each segment and type, on the device that is here.

    `own_only` leaves out lowerings without a compiled kernel. `interpret` runs the same source on
    the CPU instead of the binaries, and the kernels of the step, which a device runs at its first
    boot; what only its device can run, or is chosen in programs of many rows alone, stays
    `compiled`. `warn` hears what a start would say of the device's libraries. Raises
    ArtifactError, DeviceUnavailable, MissingPackage; a lowering that disagrees is reported in its
    result, and the rest goes on.
    """
    reader = ArtifactReader(artifact)
    reader.check()
    target, backend = reader.manifest.target, _backend(reader)
    all_lowerings: tuple[Lowering, ...] = backend.load(backend.lowerings)(target)
    lowerings = {low.name: low for low in all_lowerings}
    choices = reader.structure("choices.json", Choices)
    sources: dict[str, KernelSource] = {}
    versions = compiled_with(reader.manifest, backend) | {
        "torch": str(torch.__version__),
        "code": code_digest(backend.kernels),
    }
    if interpret:
        driver: Driver = _interpreter(target, sources, backend)
    else:
        driver = _driver(reader, backend, warn)
        versions["device"] = device_and_libraries(reader, driver)
    state: State = "interpreted" if interpret else "executed"
    device = _Device(driver, sources, state, versions, target.arch)
    for candidate, choice in chosen_candidates(reader, choices, lowerings, device.runs):
        result = _certify(candidate, choice, reader, device)
        if result.kernels or not own_only:
            yield result
    if interpret and reader.manifest.step_on_device:
        yield _interpreted_step(reader, backend, device)


@dataclass(frozen=True, slots=True)
class _Device:
    """What runs probes, and what that makes of evidence. `sources` are of what it launches."""

    driver: Driver
    sources: dict[str, KernelSource]
    state: State
    tool_versions: Mapping[str, str]
    arch: str

    def runs(self, bucket: Bucket) -> bool:
        """Whether programs of this size are run, or only said to be left out."""
        return self.state == "executed" or is_interpreted(bucket)

    @property
    def sku(self) -> str:
        """The model of the device that runs; the arch alone where its source runs elsewhere."""
        return sku_of(self.driver.device_name) if self.state == "executed" else self.arch


def _certify(
    candidate: Candidate, choice: RegionChoice, reader: ArtifactReader, device: _Device
) -> Certified:
    kernels = TakenKernels(reader.manifest.kernels, device.sources, reader.manifest.target)
    certificate: Certificate | None = None
    key: RecordKey | None = None
    ran: tuple[str, ...] = ()
    wrong, left_out = None, None
    if not device.runs(candidate.bucket):
        left_out = f"only programs of more than {MAX_INTERPRETED_ROWS} rows chose it"
    assert candidate.lowering is not None  # it was chosen by its name
    with blaming(reader, choice.lowering):
        candidate.lowering.require_knobs(choice.knobs)
        refusal = candidate.lowering.when.refusal(candidate)
        if refusal is not None:
            raise ArtifactError(f"{choice.lowering}: {refusal}; recompile the artifact")
        alone, launches = launches_alone(candidate, kernels, choice.knobs)
    try:
        key = record_key(candidate, device.sku)  # asks libraries for their versions
        if left_out is not None:
            raise NotInterpretable(left_out)
        certificate = _measured(alone, launches, reader, device)
        ran = tuple(sorted({code_of(launch) for launch in launches}))
    except Mismatch as error:
        wrong = f"{choice.lowering} is wrong on {'+'.join(choice.ops)}: {error}"
    except NotInterpretable:
        certificate = Certificate(state="compiled", tool_versions=dict(device.tool_versions))
    except ArtifactError:
        raise
    except Exception as error:  # whatever a library raises is this site's, and the rest goes on
        wrong = f"{choice.lowering} does not run: {with_causes(error)}"
    record = None
    if certificate is not None and key is not None:
        certificate = certificate.bound_to(kernels.digest())
        record = Record(key=key, knobs=choice.knobs, certificate=certificate)
    return Certified(
        program=candidate.context.name,
        lowering=choice.lowering,
        ops=choice.ops,
        certificate=certificate,
        record=record,
        error=wrong,
        kernels=tuple(sorted({k.symbol for k in kernels.taken})),
        probe=choice.probe,
        ran=ran,
        left_out=left_out,
    )


def _interpreted_step(reader: ArtifactReader, backend: Backend, device: _Device) -> Certified:
    """The kernels of the step over drawn steps, which must agree with numpy to the bit."""
    taken = TakenKernels(reader.manifest.kernels, device.sources, reader.manifest.target)
    certificate, wrong, ran = None, None, ()
    try:
        ran = interpret_step(reader, backend, device.driver, taken)
        certificate = Certificate(
            state=device.state,
            max_error=0.0,
            rms_error=0.0,
            # What is drawn follows from the limits and the programs' sizes.
            input_digest=hashlib.sha256(canonical_json(_drawn_for(reader))).hexdigest(),
            binary_digest=taken.digest(),
            tool_versions=dict(device.tool_versions),
        )
    except WrongKernel as error:
        wrong = str(error)
    except NotInterpretable:
        certificate = Certificate(state="compiled", tool_versions=dict(device.tool_versions))
    except ArtifactError:
        raise
    except Exception as error:
        wrong = f"the kernels of the step do not run: {with_causes(error)}"
    symbols = tuple(sorted({k.symbol for k in taken.taken}))
    return Certified(
        program="every program",
        lowering="the step around the layers",
        ops=tuple(f"{STEP_OP}{symbol}" for symbol in symbols),
        certificate=certificate,
        error=wrong,
        kernels=symbols,
        probe="",
        ran=ran,
    )


def _drawn_for(reader: ArtifactReader) -> list[object]:
    manifest = reader.manifest
    return [manifest.limits, [(ref.segment, ref.bucket) for ref in manifest.programs]]


def _measured(
    alone: Alone, launches: tuple[Launch, ...], reader: ArtifactReader, device: _Device
) -> Certificate:
    """The worst of all seeds. The inputs' digest is that of the probes' ids.

    Raises Mismatch, BadWrite, what the driver and what it calls raise; ArtifactError where the
    graph has no reference.
    """
    ids = hashlib.sha256()
    worst, agreement = NONE, None
    for case in certified_cases(alone.candidate, reader.manifest.model):
        with blaming(reader, alone.candidate.name):
            probe = make_probe(alone, launches, case, alone.candidate.context.name)
        ids.update(probe.id.encode())
        found = measure(probe, device.driver)
        assert found.max_error is not None  # it ran
        assert found.rms_error is not None
        worst = worst.worst(Errors(found.max_error, found.rms_error))
        if found.agreement is not None:
            agreement = min(found.agreement, 1.0 if agreement is None else agreement)
    return Certificate(
        state=device.state,
        max_error=worst.max_error,
        rms_error=worst.rms_error,
        set_agreement=agreement,
        waiver=alone.candidate.waiver,
        input_digest=ids.hexdigest(),
        tool_versions=dict(device.tool_versions),
    )


def certified_cases(candidate: Candidate, facts: ModelFacts) -> list[StepCase]:
    """Steps of the candidate's own sizes: full, with padding, at the end of the context.

    Lengths are the longest that the guard allows, in few enough pages.
    """
    context = candidate.context
    bucket = context.bucket
    longest = max(facts.index_topk, MAX_PAGES // max(bucket.reqs, 1) * facts.page_tokens)
    cases = [
        step_case(
            bucket,
            context.segment,
            seed,
            page_tokens=facts.page_tokens,
            vocab_size=facts.vocab_size,
            max_kv=facts.index_topk if context.guard.selects_all else longest,
            max_total_kv=context.guard.together(bucket.reqs * bucket.pages * facts.page_tokens),
            states=context.states,
        )
        for seed in SEEDS
    ]
    if reads_positions_alone(candidate.region):
        cases.append(far_case(cases[-1], facts.max_context))
    return cases


def keep_evidence(
    artifact: Path, certified: Iterable[Certified], folder: Path | None = None
) -> BootReport:
    """Note on this device what was certified, beside what the golden probes show.

    So an artifact with a lowering that could not be probed may serve.
    """
    reader = ArtifactReader(artifact)
    proven: dict[str, Evidence] = {}
    for each in certified:
        found = each.certificate
        if found is not None and found.state == "executed":
            proven[each.probe] = Evidence(
                what=f"{each.lowering} ({' + '.join(each.ops)})",
                state="executed",
                ran=each.ran,
                max_error=found.max_error,
                rms_error=found.rms_error,
                agreement=found.set_agreement,
            )
    backend = _backend(reader)
    return add_evidence(reader, _driver(reader, backend), backend.kernels, proven, folder)
