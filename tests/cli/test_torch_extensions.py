"""A package that loads with torch and fails: said in one sentence, by doctor and every command.

As torch_npu does where CANN's libraries are not there; a stand-in for it, on this machine's torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import one_sentence

from lostwax.backends.runtime.torch_extensions import extension_failure
from lostwax.cli.default_model import default_checkpoint

REASON = "aclInit failed, error code 507008"
AUTOLOAD = {"fails": f"raise RuntimeError({REASON!r})", "ends": "import os; os._exit(7)"}
SAID = (
    "torch does not load here (RuntimeError: Failed to load the backend extension: torch_npu. ",
    f", from RuntimeError: {REASON}): for torch_npu source CANN's set_env.sh; for a target that",
    "goes without set TORCH_DEVICE_BACKEND_AUTOLOAD=0",
)


def installed(folder: Path, autoload: str) -> dict[str, str]:
    """The environment of a process in which torch finds such a package."""
    package, facts = folder / "torch_npu", folder / "torch_npu-2.13.0.dist-info"
    package.mkdir(parents=True)
    facts.mkdir()
    (package / "__init__.py").write_text(f"def autoload():\n    {AUTOLOAD[autoload]}\n")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.13.0\n")
    (facts / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:autoload\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


def command(
    environment: dict[str, str], *arguments: object, module: str = "lostwax"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        check=False, capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip


def test_a_doctor_says_that_torch_does_not_load(tmp_path: Path) -> None:
    done = command(installed(tmp_path, "fails"), "doctor", "--json")
    found = json.loads(done.stdout)
    (torch,) = (each for each in found["machine"] if each["name"] == "torch")
    assert (done.returncode, torch["ok"]) == (1, False)
    for part in SAID:
        assert part in torch["text"]
    assert len(found["targets"]) > 5
    for target in found["targets"]:
        assert not target["compile"]["ok"], target
        assert not target["run"]["ok"], target


def test_a_command_that_needs_torch_says_it_in_one_sentence(tmp_path: Path) -> None:
    given = ("compile", default_checkpoint(), "--target", "cpu", "-o", tmp_path / "artifact")
    done = command(installed(tmp_path / "site", "fails"), *given)
    assert done.returncode == 1
    for part in SAID:
        assert part in one_sentence(done.stderr)


def test_what_is_known_is_kept_where_torch_ends_the_process(tmp_path: Path) -> None:
    given = ("bring-up", "cpu", "-o", tmp_path / "report")
    done = command(installed(tmp_path / "site", "ends"), *given)
    assert done.returncode == 7
    found = json.loads((tmp_path / "report" / "doctor.json").read_text())
    assert [each["name"] for each in found["machine"]] == ["python", "torch", "lostwax"]


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ImportError("no libtorch.so")])
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    assert extension_failure(error) is None
