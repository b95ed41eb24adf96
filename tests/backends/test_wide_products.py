"""Products of bf16 that leave in f32 are lowerings of their own, where a target has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_formats import FORMATS

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.choice import Choices, RegionChoice

KERNELS = sorted(Path(__file__).parents[2].glob("backends/*/kernels/*.py"))


def head_of(folder: Path, target: str) -> RegionChoice:
    """What computes the logits of one row: bf16 hiddens and weights, f32 logits."""
    captured = capture(parse_config(FORMATS["bf16"][0]))
    compile_module(captured.module, captured.facts, {}, target, folder, CompileOptions())
    choices = ArtifactReader(folder).structure("choices.json", Choices).programs
    chosen = next(c for name, c in choices.items() if name == "pick-r1")
    return next(c for c in chosen if c.block == "pick_head" and "quant.linear" in c.ops)


@pytest.mark.slow
def test_a_target_that_has_them_pays_for_no_conversion(tmp_path: Path) -> None:
    head = head_of(tmp_path / "a", "cuda-sm90a")
    assert head.lowering.startswith("torch_linear_wide_out")
    (converting,) = (x for x in head.losers if x.lowering == "portable_linear")
    assert converting.us is not None
    assert converting.us > head.us


@pytest.mark.slow
def test_a_target_without_them_says_which_fact_is_missing(tmp_path: Path) -> None:
    head = head_of(tmp_path / "a", "rocm-gfx942")
    assert head.lowering == "smxx_linear_plain"
    (wide,) = (x for x in head.losers if x.lowering == "torch_linear_wide_out")
    assert wide.reason == "target fact wide_products is False, wants (True,)"


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: f"{p.parts[-3]}-{p.stem}")
def test_no_kernel_asks_where_it_runs(path: Path) -> None:
    text = path.read_text()
    for question in (".is_cuda", ".device.type", "torch.version", "is_available("):
        assert question not in text, f"{path.name} decides by {question}: two ways, two lowerings"
