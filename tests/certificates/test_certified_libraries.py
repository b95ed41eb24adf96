"""`certify` hears of the libraries that are here what a start hears, and certificates say them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_fixtures import Compiled

from lostwax.backends.cpu import BACKEND
from lostwax.backends.proof import certify
from lostwax.backends.proof.certify import certify_artifact
from lostwax.backends.registry import Backend
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.require_packages import MissingPackage
from lostwax.ir.contract.artifact import Manifest


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
    small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_preflight(monkeypatch, another_cann)
    said: list[str] = []
    first = next(certify_artifact(small_artifact.artifact, warn=said.append))
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
