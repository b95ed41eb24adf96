"""Artifacts with 8-bit weights and fp32 arithmetic give what the same weights give when they are
dequantised. So the products are right, and what 8 bits cost is the rounding's alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from harness import PROMPT, Build, Models, Player
from safetensors.torch import load_file, save_file
from stored_model import differences
from torch import Tensor

from lostwax.backends.runtime.load import Runtime

STEPS = 8


def _greedy(runtime: Runtime, build: Build) -> tuple[list[int], Tensor]:
    """Tokens that follow a long prompt, and the logits of each."""
    player = Player(runtime)
    request = player.open(build.tokens(PROMPT), room=STEPS)
    (rows,) = player.extend([(request, PROMPT)], scores=False)
    found, logits = [rows.ids[-1]], [rows.logits[-1].clone()]
    for _ in range(STEPS):
        request.tokens.append(found[-1])
        (rows,) = player.decode([request])
        found.append(rows.ids[-1])
        logits.append(rows.logits[-1].clone())
    return found, torch.stack(logits)


def _require_alike(one: tuple[list[int], Tensor], other: tuple[list[int], Tensor]) -> None:
    assert one[0] == other[0]
    assert float((one[1] - other[1]).abs().max()) < 1e-4 * float(other[1].abs().max())


def test_fp8_weights_give_what_they_give_dequantised(models: Models) -> None:
    stored, wide = (
        Build("plain", 5, "fp8", "f32", weights=held) for held in ("stored", "dequantised")
    )
    _require_alike(*(_greedy(models.runtime(build), build) for build in (stored, wide)))
    assert models.artifact(stored) != models.artifact(wide)


def _on_a_grid(folder: Path, out: Path) -> Path:
    """A checkpoint whose matrices are int8 already: a power of two a row times -127 .. 127, the
    largest in each."""
    out.mkdir()
    draw = torch.Generator().manual_seed(0)
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (out / file.name).write_bytes(file.read_bytes())
            continue
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if tensor.ndim == 2:
                whole = torch.randint(-127, 128, tensor.shape, generator=draw)
                whole[:, 3] = 127
                power = torch.randint(-2, 2, (tensor.shape[0], 1), generator=draw)
                scale = 2.0**power * (tensor.std() / 73).log2().round().exp2()
                tensors[name] = (whole * scale).to(tensor.dtype)
        save_file(tensors, out / file.name)
    return out


def test_int8_weights_give_what_they_give_dequantised(models: Models, tmp_path: Path) -> None:
    int8, wide = (Build("plain", 5, "fp32", "f32", weights=held) for held in ("int8", "model"))
    grid = _on_a_grid(models.checkpoint("plain", 5, "fp32").folder, tmp_path / "grid")
    _require_alike(*(_greedy(models.runtime(build, grid), build) for build in (int8, wide)))


@pytest.mark.parametrize(
    ("format", "weights"),
    [("fp8", "stored"), ("fp32", "int8"), pytest.param("fp8", "int8", marks=pytest.mark.slow)],
)
def test_weights_mean_the_same_in_the_artifact(
    models: Models, format: Literal["fp8", "fp32"], weights: str
) -> None:
    """Log-probabilities beside the fp64 reference of the module, with weights as it holds them."""
    build = Build("plain", 5, format, "f32", weights=weights)
    off = differences(models, build, 60)
    assert np.quantile(off, 0.8) < 1e-4
    assert off.max() < 0.5
