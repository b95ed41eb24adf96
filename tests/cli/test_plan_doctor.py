"""`plan` says what a load then takes; `doctor` names what is lacking with its fix."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, Run, lostwax, one_sentence
from small_fixtures import Compiled

from lostwax.backends.registry import find_target
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.torch_build import TorchBuild, torch_build


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


@pytest.mark.parametrize("num_pages", [None, 7])
def test_a_load_takes_what_was_planned(
    run: Run, small_artifact: Compiled, num_pages: int | None
) -> None:
    given = [] if num_pages is None else ["--num-pages", num_pages]
    status, out, _ = run("plan", small_artifact.artifact, "--json", *given)
    assert status == 0
    plan = json.loads(out)
    memory = load(
        small_artifact.artifact, checkpoint=small_artifact.checkpoint, num_pages=num_pages
    ).memory
    assert plan["weights"] == sum(w.nbytes for w in memory.weights.values())
    assert plan["arena"] == memory.arena.nbytes
    assert plan["state"] == sum(state.nbytes for state in memory.states.values())
    inputs = memory.body_inputs.device, memory.head_inputs.device
    assert plan["inputs"] == sum(each.nbytes for each in inputs)
    assert plan["cache"] == sum(p.nbytes for p in memory.planes.values())
    assert plan["cache"] == plan["num_pages"] * plan["page_bytes"]
    assert plan["ranks"] == 1


def test_a_configuration_alone_is_planned_as_its_checkpoint_is(
    run: Run, small_artifact: Compiled, tmp_path: Path
) -> None:
    config = (small_artifact.checkpoint / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    status, out, _ = run("plan", tmp_path, *QUICK, "--json")
    assert status == 0
    of_artifact = json.loads(run("plan", small_artifact.artifact, "--json")[1])
    assert json.loads(out) == of_artifact
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_plan_prints_a_line_a_plane_and_a_total(run: Run, small_artifact: Compiled) -> None:
    _, out, _ = run("plan", small_artifact.artifact)
    for words in (
        "cpu, 1 rank",
        "weights",
        "latent",
        "index_key",
        "pages of 64 tokens",
        "hiddens, masks",
        "total",
    ):
        assert words in out


def test_plan_ends_with_what_no_device_of_the_kind_has(run: Run, small_artifact: Compiled) -> None:
    device = find_target("cpu")[1].memory_bytes
    given = ("plan", small_artifact.artifact, "--num-pages", 100_000_000)
    plan = json.loads(run(*given, "--json")[1])
    assert plan["beyond"] == plan["total"] - device > 0
    total, beyond = run(*given)[1].splitlines()[-2:]
    assert total.startswith("  total ")
    assert beyond == (
        f"  beyond     {plan['beyond'] / 2**20:12.1f} MiB  what the smallest device of cpu has"
        f" ({device / 2**20:.1f} MiB)"
    )
    assert json.loads(run("plan", small_artifact.artifact, "--json")[1])["beyond"] == 0
    assert "beyond" not in run("plan", small_artifact.artifact)[1]


def test_plan_of_nothing_says_what_to_give(run: Run, tmp_path: Path) -> None:
    status, _, err = run("plan", tmp_path)
    assert status == 1
    assert "is neither an artifact" in one_sentence(err)


def test_doctor_knows_that_the_cpu_needs_nothing(run: Run) -> None:
    status, out, _ = run("doctor", "cpu", "--json")
    assert status == 0
    report = json.loads(out)
    assert {"python", "torch", "lostwax"} == {c["name"] for c in report["machine"]}
    (cpu,) = report["targets"]
    assert (cpu["compile"]["ok"], cpu["run"]["ok"]) == (True, True)


def test_doctor_names_the_fix_for_a_missing_compiler(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lostwax.backends.kernel_compiler import KernelCompileError

    def missing(self: object) -> dict[str, str]:
        raise KernelCompileError("needs nvcc, and none was found: install the compiler wheels")

    monkeypatch.setattr("lostwax.backends.cuda.compiler.CudaCompiler.toolchain", missing)
    status, out, _ = run("doctor", "cuda-sm90a")
    assert status == 1
    assert "lacks compile needs nvcc, and none was found: install the compiler wheels" in out


def test_doctor_lists_every_installed_target(run: Run) -> None:
    from lostwax.backends.registry import backends

    status, out, _ = run("doctor")
    assert status == 0
    names = [t.name for b in backends().values() for t in b.load(b.targets)]
    assert all(f"{name} (" in out for name in names)


def test_plan_of_a_configuration_says_its_phases(
    run: Run, small_artifact: Compiled, tmp_path: Path
) -> None:
    config = (small_artifact.checkpoint / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    _, out, err = run("plan", tmp_path, *QUICK)
    for phase in ("import compiler", "capture", "match and price lowerings", "write artifact"):
        assert re.search(rf"^  {phase} +\d+\.\d\d s$", err, re.M), err
    assert "capture" not in out


@pytest.mark.parametrize("command", ["plan", "doctor"])
def test_plan_of_an_artifact_and_doctor_import_no_torch(
    small_artifact: Compiled, command: str
) -> None:
    given = ["plan", str(small_artifact.artifact)] if command == "plan" else ["doctor"]
    code = (
        "import sys; from lostwax.cli import main; main(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_doctor_says_of_torch_is_what_torch_says() -> None:
    found = torch_build()
    version: Any = torch.version
    assert (found.version, found.cuda, found.hip) == (torch.__version__, version.cuda, version.hip)


def test_a_gpu_is_lacking_where_torch_is_no_build_for_it() -> None:
    for name in ("cuda-sm90a", "rocm-gfx942"):
        backend, target = find_target(name)
        assert backend.presence is not None
        with pytest.raises(DeviceUnavailable, match=f"target {name} needs an .* torch 9 sees none"):
            backend.load(backend.presence)(target, TorchBuild("9", None, None))
