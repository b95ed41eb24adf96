"""Whatever a device's libraries raise is a finding of `doctor` and `bring-up`, with its text."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Run, listing, lostwax, one_sentence

from lostwax.backends.registry import find_target
from lostwax.backends.runtime.driver import DeviceUnavailable, no_kernels
from lostwax.backends.runtime.error_causes import MAX_CAUSES, MAX_CHARS, with_causes

REASON = "libhccl.so: cannot open shared object file"
DRIVERS = {
    "rocm-gfx942": "lostwax.backends.rocm",
    "cuda-sm90a": "lostwax.backends.cuda",
    "ascend-910b": "lostwax.backends.ascend",
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


def not_loading(*_: object) -> Any:
    """As torch raises where an extension's library is missing."""
    try:
        raise ImportError(REASON)
    except ImportError as error:
        raise RuntimeError("Failed to load the backend extension") from error


def present(patch: pytest.MonkeyPatch, target: str, opened: Callable[..., Any]) -> None:
    """Machine and torch say nothing against the device, and this happens where it is opened."""

    def says_nothing(*_: object) -> None: ...

    patch.setattr(f"{DRIVERS[target]}.presence.presence", says_nothing)
    patch.setattr(f"{DRIVERS[target]}.driver._open_device", opened)


@pytest.mark.parametrize("target", DRIVERS)
def test_what_the_libraries_raise_is_said_with_its_cause(
    target: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    present(monkeypatch, target, not_loading)
    backend, described = find_target(target)
    with pytest.raises(DeviceUnavailable, match=f"needs an .*{REASON}.*: compile for --target cpu"):
        backend.load(backend.driver)(described, no_kernels, {})
    _, out, err = run("doctor", target, "--json")
    (found,) = json.loads(out)["targets"]
    assert not found["run"]["ok"], err
    assert REASON in found["run"]["text"]


@pytest.mark.parametrize("raised", [TypeError("of a stub"), AssertionError(), Exception("aclInit")])
def test_any_exception_of_a_probe_is_a_finding(
    raised: Exception, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> Any:
        raise raised

    monkeypatch.setattr("lostwax.backends.rocm.compiler.RocmCompiler.toolchain", raising)
    monkeypatch.setattr("lostwax.backends.rocm.presence.presence", raising)
    status, out, _ = run("doctor", "rocm-gfx942", "--json")
    (found,) = json.loads(out)["targets"]
    assert status == 1
    for check in (found["compile"], found["run"]):
        assert (check["ok"], check["text"]) == (False, with_causes(raised))


def test_a_bring_up_keeps_why_a_device_did_not_open(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    present(monkeypatch, "rocm-gfx942", not_loading)
    status, _, err = run("bring-up", "rocm-gfx942", "-o", tmp_path / "report")
    assert status == 1
    assert REASON in one_sentence(err)
    assert listing(tmp_path / "report") == ["doctor.json"]
    assert REASON in (tmp_path / "report" / "doctor.json").read_text()


def test_what_is_known_is_kept_where_opening_ends_the_process(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Aborted(BaseException):
        """As a library that ends the process: nothing behind it runs."""

    def aborting(*_: object) -> Any:
        raise Aborted

    present(monkeypatch, "rocm-gfx942", aborting)
    with pytest.raises(Aborted):
        run("bring-up", "rocm-gfx942", "-o", tmp_path / "report")
    found = json.loads((tmp_path / "report" / "doctor.json").read_text())
    assert any(check["text"].startswith(str(torch.__version__)) for check in found["machine"])
    assert "the driver had yet to be opened" in found["targets"][0]["run"]["text"]
    assert not found["targets"][0]["run"]["ok"]


def test_a_chain_of_errors_is_told_up_to_its_first() -> None:
    with pytest.raises(RuntimeError) as caught:
        not_loading()
    assert with_causes(caught.value) == (
        f"RuntimeError: Failed to load the backend extension, from ImportError: {REASON}"
    )
    assert with_causes(AssertionError()) == "AssertionError"


def test_of_a_long_chain_as_much_is_told_as_is_read() -> None:
    """The last sentences, from what was raised on; of each as much as a line bears."""
    error = ImportError("first")
    for number in range(MAX_CAUSES):
        later = RuntimeError(f"{number} " + "x" * 2 * MAX_CHARS)
        later.__cause__ = error
        error = later
    parts = with_causes(error).split(", from ")
    assert [part.split()[1] for part in parts] == ["3", "2", "1", "0"]
    assert all(len(part) <= MAX_CHARS + len("RuntimeError: ") for part in parts)
