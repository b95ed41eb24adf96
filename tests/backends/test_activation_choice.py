"""The default form of activations is the rule's over what was measured, and `explain` says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import lostwax
from msgspec.structs import replace
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.cpu import BACKEND as CPU
from lostwax.backends.cuda import BACKEND as CUDA
from lostwax.backends.cuda import activations as cuda
from lostwax.backends.cuda.target import CUDA_SM90A, CUDA_SM100A
from lostwax.cli.compile import default_activations
from lostwax.ir.contract.weights import Source

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "2026-11-29-h200-full-step.json"


def _steps(what: str) -> dict[int, float]:
    run = next(run for run in json.loads(RESULTS.read_text())["runs"] if run["what"] == what)
    return {r["rows"]: r["device_us"] for r in run["rows"] if r["entry"] == "decode"}


def test_the_numbers_are_those_that_were_kept() -> None:
    exact, fastest = (_steps(f"bf16 cache, {form} activations") for form in ("bf16", "fp8"))
    assert cuda.MEASURED["sm_90a"] == {rows: (exact[rows], fastest[rows]) for rows in (1, 16, 64)}


@pytest.mark.parametrize(("share", "form"), [(1.0599, "model"), (1.0601, "fp8")])
def test_the_more_exact_form_is_the_default_up_to_six_percent(
    share: float, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cuda.MEASURED, "sm_90a", {1: (share, 1.0), 64: (4 * share, 4.0)})
    choice = cuda.activations(CUDA_SM90A)
    assert choice.form == form
    assert f"{share:.4f}" in choice.reason


def test_what_nobody_timed_stays_as_it_is() -> None:
    assert cuda.activations(CUDA_SM100A).form == "model"
    other = replace(CUDA_SM90A, arch="sm_999")
    assert cuda.activations(other).reason == "no step was timed on sm_999"


def test_explain_says_why_nobody_had_to_ask(
    compile_small: CompileSmall,
    small_artifact: Compiled,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compile_small(tmp_path / "art", activations_reason="fp8: faster")
    _, out, _ = lostwax(capsys, "explain", tmp_path / "art")
    assert out.startswith("activations: fp8: faster\n")
    _, out, _ = lostwax(capsys, "explain", small_artifact.artifact)
    assert "activations:" not in out


@pytest.mark.parametrize(
    ("stored", "dtype", "form"),
    [("f8E4M3FN", "bf16", "fp8"), ("f8E4M3FN", "f32", "model"), ("bf16", "bf16", "model")],
)
def test_only_fp8_weights_beside_bf16_have_a_choice(stored: str, dtype: str, form: str) -> None:
    source = Source(file="a.safetensors", tensor="w", dtype=stored, shape=(128, 128))
    choice = default_activations(CUDA, CUDA_SM90A, {"w": (source,)}, dtype)
    assert choice.form == form
    assert default_activations(CPU, CUDA_SM90A, {"w": (source,)}, dtype).form == "model"
