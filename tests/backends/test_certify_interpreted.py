"""An artifact for a GPU is certified here by running its source: interpreted, never executed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lostwax.backends.gpu_kernels.interpreter import bind_interpreted
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.program import KernelLaunch

pytest.importorskip("triton", reason="the extra `aot` is not installed")

CompileSmall = Callable[..., Manifest]
Line = dict[str, Any]  # a line of `certify --json`


def certify(artifact: Path) -> tuple[int, list[Line]]:
    command = [sys.executable, "-m", "lostwax", "certify", str(artifact), "--interpret", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy())
    assert done.stdout, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def lines(compile_small: CompileSmall, tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    artifact = tmp_path_factory.mktemp("rocm") / "artifact"
    compile_small(artifact, target="rocm-gfx942", dtype="bf16")
    code, found = certify(artifact)
    assert code == 0, [line for line in found if line["error"]]
    return found


def test_every_lowering_of_a_rocm_artifact_agrees_with_the_reference(lines: list[Line]) -> None:
    assert {line["certificate"]["state"] for line in lines} == {"interpreted"}
    own = Counter(line["lowering"] for line in lines if line["kernels"])
    assert {"smxx_add_rms_norm", "smxx_mla_attend_splitkv"} <= set(own)


def test_a_certificate_names_the_binaries_whose_source_ran(lines: list[Line]) -> None:
    for line in lines:
        assert bool(line["certificate"]["binary_digest"]) is bool(line["kernels"])
        assert "triton" in line["certificate"]["tool_versions"]


def test_a_process_that_compiles_refuses_to_interpret() -> None:
    source = KernelSource(
        language="triton", path="lostwax.backends.gpu_kernels.norms", symbol="rms_norm"
    )
    launch = KernelLaunch(binary="", symbol="", grid=(1, 1, 1), block=(1, 1, 1), params=())

    def nothing(view: object) -> Any:
        raise AssertionError(view)

    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        bind_interpreted(source, launch, nothing)
