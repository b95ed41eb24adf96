"""Runs the kernels of the step of an artifact where its device is not: their source, interpreted.

The proof is the one of the first boot (`runtime/prove_step.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from lostwax.backends.registry import Backend
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.prove_step import prove_step
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.step_layout import StepLayout


def interpret_step(
    reader: ArtifactReader,
    backend: Backend,
    driver: Driver,
    build: Callable[[KernelSource], CompiledKernel],
) -> tuple[str, ...]:
    """What code ran. `build` finds the binary of a source, and tells the driver of it.

    Raises WrongKernel where one is wrong, ArtifactError where a binary is missing.
    """
    manifest = reader.manifest
    assert backend.step is not None  # the manifest says that the device keeps the state
    layout = StepLayout.of(manifest.limits)
    around = backend.load(backend.step)(layout, manifest.limits.page_tokens, manifest.target, build)
    for ref in manifest.programs:
        program = reader.program(ref.file)
        around.before(program)
        around.behind(program)
    return prove_step(reader, driver).ran
