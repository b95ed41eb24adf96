"""`lostwax serve` imports torch where a program calls its operators, and a compiler never."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from served_artifact import served
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.program import HostCall, launches_of

WATCHED = (
    "torch", "xdsl", "onnx", "triton", "transformers", "lostwax.frontend",
    "lostwax.backends.compile", "lostwax.backends.proof", "lostwax.ir.dialects",
)  # fmt: skip

# Every process of the server reads it as it starts: gateway, engine, and whatever they start.
# Only what is run is noted: whether torch is installed is asked of any server.
WATCH = """
import sys
from importlib.machinery import PathFinder

class Noted:
    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        with open({log!r}, "a") as file:
            print(module.__name__, file=file)
        self.loader.exec_module(module)

class Watch:
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path) if name in {watched!r} else None
        if spec is not None:
            spec.loader = Noted(spec.loader)
        return spec

sys.meta_path.insert(0, Watch())
"""
BY_TORCH = {"triton"}
"""What torch imports in its turn."""


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each watched module that a process imports from here on."""
    log = tmp_path / "imported"
    log.touch()
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WATCH.format(watched=WATCHED, log=str(log)))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    return log


def _answer(artifact: Path, checkpoint: Path, certificates: Path) -> list[str]:
    """Ask a server one question; the texts of its answer."""
    options = ("--checkpoint", str(checkpoint), "--certificates", str(certificates))
    with served(artifact, *options) as url:
        asked = {"prompt": [5, 6, 7], "max_tokens": 3, "temperature": 0}
        answer = httpx.post(f"{url}/v1/completions", json=asked, timeout=60)
        answer.raise_for_status()
        return [choice["text"] for choice in answer.json()["choices"]]


def _host_calls(artifact: Path) -> bool:
    reader = ArtifactReader(artifact)
    programs = [reader.program(ref.file) for ref in reader.manifest.programs]
    return any(isinstance(each, HostCall) for p in programs for each in launches_of(p))


@pytest.mark.parametrize("name", ["small_artifact", "torch_artifact"])
def test_on_a_cpu_torch_is_imported_for_host_calls_alone(
    name: str, request: pytest.FixtureRequest, imported: Path, tmp_path: Path
) -> None:
    compiled: Compiled = request.getfixturevalue(name)
    imported.write_text("")  # a compile imports all of them
    assert len(_answer(compiled.artifact, compiled.checkpoint, tmp_path / "c")) == 1
    found = set(imported.read_text().split())
    assert ("torch" in found) == _host_calls(compiled.artifact)
    assert found <= {"torch", *BY_TORCH}


def test_a_target_that_computes_nothing_imports_no_torch(
    compile_small: CompileSmall, small_checkpoint: Path, imported: Path, tmp_path: Path
) -> None:
    compile_small(tmp_path / "null", target="null")
    imported.write_text("")
    assert len(_answer(tmp_path / "null", small_checkpoint, tmp_path / "c")) == 1
    assert imported.read_text() == ""
