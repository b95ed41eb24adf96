"""One small checkpoint, its capture and its artifact, made once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny import write_config

from lostwax.ir.contract.artifact import Manifest

if TYPE_CHECKING:
    from lostwax.frontend.capture import Captured

CompileSmall = Callable[..., Manifest]
"""compile_small(out, target="cpu", **options of CompileOptions)"""


@dataclass(frozen=True)
class Compiled:
    """An artifact with what it was made from."""

    checkpoint: Path
    artifact: Path
    manifest: Manifest


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random fp32 checkpoint of the smallest model."""
    from small import SMALL

    from lostwax.frontend.new_checkpoint import new_checkpoint

    folder = tmp_path_factory.mktemp("small")
    new_checkpoint(write_config(folder, SMALL), folder / "ckpt", seed=0, format="fp32")
    return folder / "ckpt"


@pytest.fixture(scope="session")
def small_capture(small_checkpoint: Path) -> Captured:
    """Its captured module, facts and weight table; tests must not change the module."""
    from lostwax.frontend.capture import capture
    from lostwax.frontend.checkpoint import open_checkpoint

    return capture(open_checkpoint(small_checkpoint))


@pytest.fixture(scope="session")
def compile_small(small_capture: Captured) -> CompileSmall:
    """Compile the small model: `compile_small(out, target="cpu", **options)`."""
    from small import options

    from lostwax.backends.compile import compile_module

    def compiled(out: Path, target: str = "cpu", **changes: object) -> Manifest:
        c = small_capture
        return compile_module(c.module, c.facts, c.weights, target, out, options(**changes))

    return compiled


@pytest.fixture(scope="session")
def torch_artifact(
    small_checkpoint: Path, compile_small: CompileSmall, tmp_path_factory: pytest.TempPathFactory
) -> Compiled:
    """The same as `small_artifact` on torch's operators alone, in which faults can be planted."""
    from native_kernels import torch_alone

    artifact = tmp_path_factory.mktemp("artifact") / "torch"
    with torch_alone():
        return Compiled(small_checkpoint, artifact, compile_small(artifact))


@pytest.fixture(scope="session")
def small_artifact(
    small_checkpoint: Path, compile_small: CompileSmall, tmp_path_factory: pytest.TempPathFactory
) -> Compiled:
    """The small model compiled for the CPU in fp32; tests must not change it."""
    artifact = tmp_path_factory.mktemp("artifact") / "small"
    return Compiled(small_checkpoint, artifact, compile_small(artifact))
