"""Serving needs no compiler, no model code and no place; compiling depends on no machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from small import PROMPT, plan
from small_fixtures import Compiled

from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.load import load
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.program import HostCall, launches_of

FORBIDDEN = ("lostwax.frontend", "xdsl", "onnx", "triton", "torch._dynamo", "torch._inductor")

STEP = """
import sys
from pathlib import Path
import lostwax.server.engine.process
from lostwax.backends.runtime.load import load
import json
import msgspec
from lostwax.ir.contract.step_plan import StepPlan
plan = msgspec.json.decode(sys.argv[3], type=StepPlan)
runtime = load(Path(sys.argv[1]), checkpoint=Path(sys.argv[2]))
result = runtime.run(plan)
print(json.dumps([result.ids, sorted(sys.modules)]))
"""


def run_python(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def among(modules: list[str], forbidden: tuple[str, ...]) -> list[str]:
    return [m for m in modules if any(m == f or m.startswith(f + ".") for f in forbidden)]


def test_an_engine_that_runs_a_step_never_imports_a_compiler_or_the_model(
    small_artifact: Compiled,
) -> None:
    step = plan(PROMPT, 0)
    answer = run_python(
        "-c",
        STEP,
        str(small_artifact.artifact),
        str(small_artifact.checkpoint),
        msgspec.json.encode(step).decode(),
    )
    ids, modules = json.loads(answer)
    runtime = load(small_artifact.artifact, checkpoint=small_artifact.checkpoint)
    assert ids == runtime.run(step).ids
    reader = ArtifactReader(small_artifact.artifact)
    programs = [reader.program(ref.file) for ref in reader.manifest.programs]
    calls = [x for each in programs for x in launches_of(each) if isinstance(x, HostCall)]
    assert ("torch" in modules) == bool(calls)
    assert among(modules, FORBIDDEN) == []


@pytest.mark.parametrize(
    "module", ["lostwax.server.gateway.serve", "lostwax.server.gateway.app", "lostwax.cli.serve"]
)
def test_the_gateway_imports_no_torch(module: str) -> None:
    found = json.loads(
        run_python("-c", f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))")
    )
    assert module in found
    assert among(found, ("torch", *FORBIDDEN)) == []


COMPILE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from small import options
from lostwax.backends.compile import compile_module
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
c = capture(open_checkpoint(Path(sys.argv[1])))
compile_module(c.module, c.facts, c.weights, "cpu", Path(sys.argv[2]), options())
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_another_process_folder_home_seed_and_thread_count_give_the_same_bytes(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(small_artifact.checkpoint, tmp_path / "elsewhere")
    run_python(
        "-c",
        COMPILE.format(tests=str(Path(__file__).parents[1])),
        str(checkpoint),
        str(tmp_path / "other name"),
        PYTHONHASHSEED="12345",
        OMP_NUM_THREADS="2",
        HOME=str(tmp_path / "home"),
        USER="somebody",
        TZ="Pacific/Auckland",
        LC_ALL="C",
    )
    assert files_of(tmp_path / "other name") == files_of(small_artifact.artifact)


def test_compiling_twice_into_one_folder_gives_the_same_digest(
    small_artifact: Compiled, compile_small: Callable[..., Manifest], tmp_path: Path
) -> None:
    first = compile_small(tmp_path / "a")
    assert compile_small(tmp_path / "a").digest == first.digest == small_artifact.manifest.digest
    assert not [p for p in files_of(tmp_path) if str(tmp_path) in p]


def test_no_file_of_the_artifact_names_this_machine(small_artifact: Compiled) -> None:
    for name, data in files_of(small_artifact.artifact).items():
        assert str(small_artifact.checkpoint).encode() not in data, name
        assert str(Path(__file__).parents[2]).encode() not in data, name


def test_a_moved_artifact_still_serves_with_its_checkpoint_moved_too(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    expected = load(small_artifact.artifact, checkpoint=small_artifact.checkpoint)
    artifact = shutil.copytree(small_artifact.artifact, tmp_path / "first")
    checkpoint = shutil.copytree(small_artifact.checkpoint, tmp_path / "ckpt")
    (artifact / "checkpoint.json").write_text(json.dumps({"path": str(checkpoint)}))
    moved = Path(shutil.move(artifact, tmp_path / "second"))
    ids = expected.run(plan(PROMPT, 0)).ids
    assert load(moved).run(plan(PROMPT, 0)).ids == ids
    elsewhere = Path(shutil.move(checkpoint, tmp_path / "new"))
    assert load(moved, checkpoint=elsewhere).run(plan(PROMPT, 0)).ids == ids


def test_an_artifact_that_knows_no_checkpoint_asks_for_one(small_artifact: Compiled) -> None:
    with pytest.raises(ArtifactError, match="give --checkpoint DIR"):
        load(small_artifact.artifact)


def test_an_artifact_on_a_read_only_file_system_serves(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    artifact = shutil.copytree(small_artifact.artifact, tmp_path / "a")
    before = files_of(artifact)
    for path in (*artifact.rglob("*"), artifact):
        path.chmod(path.stat().st_mode & ~0o222)
    load(artifact, checkpoint=small_artifact.checkpoint).run(plan(PROMPT, 0))
    for path in (artifact, *artifact.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    assert files_of(artifact) == before
