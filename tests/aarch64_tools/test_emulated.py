"""Artifacts for aarch64 under qemu-user: emulated, which shows what they compute and no speed.

Nothing here ran on a device.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from aarch64_tools.environment import FOLDER, ROOT
from emulated_python import run
from tokenizers import Tokenizer
from trained_fixtures import TRAINED

from lostwax.cli.compile import compile_checkpoint

pytestmark = pytest.mark.aarch64
TOOLS = Path(__file__).parent
QUESTIONS = ("What is 387 + 45?", "There are 14 boxes with 6 cups each. How many?", "{" * 70)
NEW = 24


@pytest.fixture(scope="session", autouse=True)
def environment() -> Path:
    """Where the other processor's Python lies."""
    if not (FOLDER / "made-of").exists():
        pytest.fail("no environment for aarch64: run tests/aarch64_tools/environment.py")
    return FOLDER


def _compiled(folder: Path, target: str, dtype: Literal["fp32", "bf16"]) -> Path:
    compile_checkpoint(
        TRAINED, folder, target=target, dtype=dtype, max_context=512, max_tokens=64, max_reqs=4
    )
    return folder


def _answers(artifact: Path, folder: Path, *, emulated: bool) -> dict[str, Any]:
    tokenizer = Tokenizer.from_file(str(TRAINED / "tokenizer.json"))
    prompts = [tokenizer.encode(text).ids for text in QUESTIONS]
    program = [TOOLS / "answer.py", artifact, TRAINED, folder / "proofs", NEW, json.dumps(prompts)]
    if emulated:
        done = run(FOLDER, *program, also=(ROOT / "src",))
    else:
        command = [sys.executable, *map(str, program)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_an_artifact_answers_as_one_for_x86_64(
    dtype: Literal["fp32", "bf16"], tmp_path: Path
) -> None:
    """All its lowerings pass their golden probes there first, and answers have the same tokens."""
    own = _answers(_compiled(tmp_path / "x", "cpu", dtype), tmp_path, emulated=False)
    other = _answers(_compiled(tmp_path / "a", "cpu-aarch64", dtype), tmp_path, emulated=True)
    assert (own["machine"], other["machine"]) == ("x86_64", "aarch64")
    for answers in (own, other):
        found = re.match(r"(\d+) of (\d+) lowerings executed", answers["said"][0])
        assert found is not None, answers["said"]
        assert found[1] == found[2], answers["said"]
    assert other["tokens"] == own["tokens"]
    assert {len(tokens) for tokens in own["tokens"].values()} == {NEW}


def test_an_artifact_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    first, second = (_compiled(tmp_path / name, "cpu-aarch64", "fp32") for name in ("a", "b"))
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    assert any(file.suffix == ".so" for file in files)
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_an_artifact_of_the_other_processor_is_refused(tmp_path: Path) -> None:
    artifact = _compiled(tmp_path / "x", "cpu", "fp32")
    done = run(
        FOLDER, TOOLS / "answer.py", artifact, TRAINED, tmp_path, 1, "[[1]]", also=(ROOT / "src",)
    )
    assert done.returncode == 1
    said = "target cpu needs x86_64 or amd64, this machine is aarch64"
    assert said in done.stderr
    assert done.stderr.endswith("a target that runs here: --target cpu-aarch64\n")
