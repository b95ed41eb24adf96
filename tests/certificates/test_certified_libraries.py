"""`certify` hears of the libraries that are here what a start hears, and certificates say them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from msgspec import structs
from small_fixtures import Compiled

from lostwax.backends.cpu import BACKEND
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.proof import certify
from lostwax.backends.proof.certify import certify_artifact
from lostwax.backends.records.record_key import record_key
from lostwax.backends.registry import Backend
from lostwax.backends.runtime import boot_check, require_packages
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.error_causes import with_causes
from lostwax.backends.runtime.require_packages import MissingPackage
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.probe import Evidence
from lostwax.ir.contract.record import RecordKey


def another_cann(manifest: Manifest, functions: tuple[object, ...]) -> tuple[str, ...]:
    assert all(map(callable, functions))
    return (f"{len(functions) > 5}: the artifact was compiled for CANN 9.1.0",)


def no_operator(manifest: Manifest, functions: tuple[object, ...]) -> tuple[str, ...]:
    raise MissingPackage("npu_quant_matmul: missing")


def with_preflight(patch: pytest.MonkeyPatch, function: object) -> None:
    """Give the CPU's backend a preflight."""
    named = f"{__name__}:{getattr(function, '__name__', '')}"

    def backend(reader: ArtifactReader) -> Backend:
        return replace(BACKEND, preflight=named)

    patch.setattr(certify, "_backend", backend)


def test_what_a_start_would_say_is_said_before_anything_runs(
    torch_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_preflight(monkeypatch, another_cann)
    said: list[str] = []
    first = next(certify_artifact(torch_artifact.artifact, warn=said.append))
    assert said == ["True: the artifact was compiled for CANN 9.1.0"]
    assert first.certificate is not None
    device = first.certificate.tool_versions["device"]
    assert device.endswith(f", torch {torch.__version__}"), "the driver's fingerprint"


def test_an_artifact_that_cannot_run_here_is_refused_as_at_a_start(
    small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_preflight(monkeypatch, no_operator)
    with pytest.raises(MissingPackage, match="npu_quant_matmul: missing"):
        next(certify_artifact(small_artifact.artifact))


def test_a_key_that_a_library_spoils_is_its_sites_and_the_rest_goes_on(
    small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks libraries for their versions, which may raise anything."""
    spoilt = "cpu_native_zeros_like"

    def asking(candidate: Candidate, sku: str) -> RecordKey:
        if candidate.name == spoilt:
            raise AttributeError("no attribute 'get_cann_version'")
        return record_key(candidate, sku)

    monkeypatch.setattr(certify, "record_key", asking)
    found = list(certify_artifact(small_artifact.artifact))
    wrong = [each for each in found if each.error]
    assert {each.lowering for each in wrong} == {spoilt}
    assert all("does not run: AttributeError: no attribute 'get" in str(x.error) for x in wrong)
    assert all(each.record is None and each.certificate is None for each in wrong)
    assert all(each.record is not None for each in found if not each.error)


def calling(package: str) -> Callable[[Path], ArtifactReader]:
    """Opens artifacts as if a lowering of theirs called this package."""

    def opened(folder: Path) -> ArtifactReader:
        reader = ArtifactReader(folder)
        requires = {package: ("aiter_route",)}
        reader.manifest = structs.replace(reader.manifest, requires=requires)
        return reader

    return opened


def test_a_certificate_says_the_versions_of_what_was_called(
    small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's fingerprint knows none of the packages that an artifact calls."""
    monkeypatch.setattr(certify, "ArtifactReader", calling("amd-aiter"))
    for module in (boot_check, require_packages):
        monkeypatch.setattr(module, "installed_version", {"amd-aiter": "0.1.14"}.get)
    first = next(certify_artifact(small_artifact.artifact))
    assert first.certificate is not None
    device = first.certificate.tool_versions["device"]
    assert device.endswith(f", torch {torch.__version__}, amd-aiter 0.1.14")


@pytest.mark.parametrize("first", [1.0, 0.5])
def test_a_site_s_agreement_is_that_of_its_worst_case(
    first: float, small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever case comes last."""
    agreements = iter([first, 1.5 - first, 1.0, 1.0])

    def measured(*_: object) -> Evidence:
        return Evidence(
            what="x", state="executed", max_error=0.0, rms_error=0.0, agreement=next(agreements)
        )

    monkeypatch.setattr(certify, "measure", measured)
    site = next(certify_artifact(small_artifact.artifact))
    assert site.certificate is not None
    assert site.certificate.set_agreement == 0.5


class VendorError(Exception):
    """Of a library: derived from nothing that anybody could name."""


@pytest.mark.parametrize(
    "raised",
    [AttributeError("no triton.runtime"), AssertionError("of a stub"), VendorError("aclInit")],
)
def test_what_a_library_raises_in_the_step_is_the_steps_finding(
    raised: Exception, small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_raises(monkeypatch, raised)
    (step,) = certify_artifact(small_artifact.artifact, interpret=True)
    assert (step.lowering, step.certificate) == ("the step around the layers", None)
    assert step.error == f"the kernels of the step do not run: {with_causes(raised)}"


def test_an_artifact_that_is_wrong_in_the_step_ends_it(
    small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_raises(monkeypatch, ArtifactError("step.json is cut short; compile it again"))
    with pytest.raises(ArtifactError, match="cut short"):
        list(certify_artifact(small_artifact.artifact, interpret=True))


def step_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """As if the artifact's device kept the state, and nothing else was to be certified."""

    def raising(*_: object) -> tuple[str, ...]:
        raise error

    def nothing(*_: object) -> tuple[()]:
        return ()

    monkeypatch.setattr(Manifest, "step_on_device", True)
    monkeypatch.setattr(ArtifactReader, "check", nothing)
    monkeypatch.setattr(certify, "chosen_candidates", nothing)
    monkeypatch.setattr(certify, "interpret_step", raising)
