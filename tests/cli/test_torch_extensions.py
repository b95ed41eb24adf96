"""A package that loads with torch and fails: said in one sentence, by doctor and every command.

As torch_npu does where CANN's libraries are not there; a stand-in for it, on this machine's torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import zmq
from command_line import one_sentence
from small_fixtures import Compiled

from lostwax.backends.runtime.torch_extensions import extension_failure
from lostwax.cli.compile_apart import Job
from lostwax.cli.default_model import default_checkpoint
from lostwax.server.engine.messages import Event, Fatal, decode_events

REASON = "aclInit failed, error code 507008"
AUTOLOAD = {
    "fails": f"raise RuntimeError({REASON!r})",
    "exits": f"raise SystemExit({REASON!r})",
    "ends": "import os; os._exit(7)",
}
REMEDY = (
    "): for torch_npu source CANN's set_env.sh; for a target that goes without set"
    " TORCH_DEVICE_BACKEND_AUTOLOAD=0"
)
SAID = {
    "fails": (
        "torch does not load here (RuntimeError: Failed to load the backend extension: torch_npu. ",
        f", from RuntimeError: {REASON}{REMEDY}",
    ),
    "exits": (
        "torch does not load here (torch, or what loads with it, ends the process:"
        f" SystemExit: {REASON}{REMEDY}",
    ),
}


DEVICES = {"ascend-910b": "an Ascend NPU", "rocm-gfx942": "an AMD GPU"}


def installed(folder: Path, autoload: str) -> dict[str, str]:
    """The environment of a process in which torch finds such a package."""
    package, facts = folder / "torch_npu", folder / "torch_npu-2.13.0.dist-info"
    package.mkdir(parents=True)
    facts.mkdir()
    (package / "__init__.py").write_text(f"def autoload():\n    {AUTOLOAD[autoload]}\n")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.13.0\n")
    (facts / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:autoload\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


def command(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return module(environment, "lostwax", *arguments)


def module(environment: dict[str, str], *given: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, given)],
        check=False, capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("autoload", SAID)
def test_a_doctor_says_that_torch_does_not_load(autoload: str, tmp_path: Path) -> None:
    done = command(installed(tmp_path, autoload), "doctor", "--json")
    found = json.loads(done.stdout)
    (torch,) = (each for each in found["machine"] if each["name"] == "torch")
    assert (done.returncode, torch["ok"]) == (1, False)
    for part in SAID[autoload]:
        assert part in torch["text"]
    assert len(found["targets"]) > 5
    for target in found["targets"]:
        assert not target["compile"]["ok"], target
        assert not target["run"]["ok"], target
        assert "--target" not in target["run"]["text"], "no other one runs, either"
        assert target["run"]["text"].endswith("needs torch, which is lacking (above)")
    texts = {target["target"]: target["run"]["text"] for target in found["targets"]}
    for name, device in DEVICES.items():
        assert f"needs {device} with its driver" in texts[name]


@pytest.mark.parametrize("autoload", SAID)
@pytest.mark.parametrize("name", ["compile", "certify", "bring-up"])
def test_a_command_that_needs_torch_says_it_in_one_sentence(
    name: str, autoload: str, tmp_path: Path, small_artifact: Compiled
) -> None:
    given = {
        "compile": (default_checkpoint(), "--target", "cpu", "-o", tmp_path / "artifact"),
        "certify": (small_artifact.artifact,),
        "bring-up": ("cpu", "-o", tmp_path / "report"),
    }
    done = command(installed(tmp_path / "site", autoload), name, *given[name])
    assert done.returncode == 1
    for part in SAID[autoload]:
        assert part in one_sentence(done.stderr)


def engine(address: str, rank: int, artifact: Path) -> list[object]:
    given = ["--address", address, "--parent", os.getpid(), "--rank", rank, "--ranks", 2]
    return ["lostwax.server.engine", artifact, *given, "--meeting", artifact.with_name("meeting")]


def apart(out: Path) -> list[object]:
    job = Job(os.fsencode(default_checkpoint()), os.fsencode(out), "cpu", "fp32", 0)
    return ["lostwax.cli.compile_apart", os.getpid(), msgspec.json.encode(job).decode()]


@pytest.mark.parametrize("autoload", SAID)
def test_every_other_process_ends_with_that_sentence_too(autoload: str, tmp_path: Path) -> None:
    """The engine says it to the gateway, another rank to the log, a compile to who started it."""
    environment, artifact = installed(tmp_path / "site", autoload), tmp_path / "artifact"
    address = f"ipc://{tmp_path}/e"
    commands = [engine(address, 0, artifact), engine(address, 1, artifact), apart(artifact)]

    def ended(given: list[object]) -> subprocess.CompletedProcess[str]:
        return module(environment, *given)

    with zmq.Context() as context, context.socket(zmq.PAIR) as gateway:
        gateway.linger = 0
        gateway.bind(address)
        with ThreadPoolExecutor() as pool:
            done = list(pool.map(ended, commands))
        events: list[Event] = []
        while gateway.poll(0):
            events += decode_events(gateway.recv())
    of_engine = "".join(each.message for each in events if isinstance(each, Fatal))
    for said, each in zip((of_engine, done[1].stderr, done[2].stdout), done, strict=True):
        assert each.returncode == 1, each.stderr
        assert "Traceback" not in each.stderr
        for part in SAID[autoload]:
            assert part in said


def test_what_is_known_is_kept_where_torch_ends_the_process(tmp_path: Path) -> None:
    given = ("bring-up", "cpu", "-o", tmp_path / "report")
    done = command(installed(tmp_path / "site", "ends"), *given)
    assert done.returncode == 7
    found = json.loads((tmp_path / "report" / "doctor.json").read_text())
    assert [each["name"] for each in found["machine"]] == ["python", "torch", "lostwax"]


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ImportError("no libtorch.so")])
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    assert extension_failure(error) is None
