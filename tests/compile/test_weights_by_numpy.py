"""A process without torch makes the stored weights that torch makes, of whole checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from small_fixtures import Compiled
from trained_fixtures import TRAINED

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import Driver, no_kernels
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.load_weights import load_weights


def _require_equal(artifact: Path, checkpoint: Path) -> set[str]:
    """The element types of the weights, all of which both made alike."""
    plan = ArtifactReader(artifact).weight_plan()
    drivers: list[Driver] = [CpuDriver(CPU, no_kernels, {}), HostDriver(CPU, no_kernels, {})]
    by_numpy, by_torch = (load_weights(plan, checkpoint, driver) for driver in drivers)
    assert by_numpy.keys() == by_torch.keys()
    for key, buffer in by_numpy.items():
        assert buffer.any(), f"{key} was never written"
        assert buffer.tobytes() == by_torch[key].numpy().tobytes(), key
    return {stored.dtype for group in plan.stored.values() for stored in group}


def test_of_a_small_model(small_artifact: Compiled) -> None:
    assert _require_equal(small_artifact.artifact, small_artifact.checkpoint) == {"f32"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "held"), [("fp32", {"f32"}), ("bf16", {"bf16", "f32", "f8E4M3FN"})]
)
def test_of_the_trained_model(
    tmp_path: Path, dtype: Literal["fp32", "bf16"], held: set[str]
) -> None:
    """Its checkpoint is in fp8 with scales for blocks, which bf16 reads as they are."""
    from lostwax.cli.compile import compile_checkpoint

    compile_checkpoint(
        TRAINED, tmp_path / "a", target="cpu", dtype=dtype, max_context=1024, max_reqs=4
    )
    assert _require_equal(tmp_path / "a", TRAINED) == held
