"""What each of two ranks loads is what the weight forms' numpy meaning gives it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors import safe_open
from small import SIZES
from tiny import WIDE, write_config

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.load_weights import load_weights
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.weights import Source, Split, StoredWeight, Tile, Transpose, WeightPlan
from lostwax.ir.reference.dtype import Scaled, Value
from lostwax.ir.reference.weight_forms import stored_weight

RANKS = (Rank(0, 2), Rank(1, 2))
CONFIG = WIDE | {"vocab_size": 64, "hidden_size": 256, "num_hidden_layers": 2}
"""Two heads of 192 rows a rank (whole scale blocks), experts of 64 (half a block)."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    new_checkpoint(write_config(folder / "source", CONFIG), folder / "ck", seed=1, format="fp8")
    return folder / "ck"


@pytest.fixture(scope="module", params=["bf16", "f32"])
def plan(request: Any, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> WeightPlan:
    """bf16 keeps FP8 with its scales, f32 dequantises before it slices."""
    captured = capture(open_checkpoint(checkpoint))
    out = tmp_path_factory.mktemp("slices") / "artifact"
    options = CompileOptions(dtype=request.param, sizes=SIZES, tp=2)
    compile_module(captured.module, captured.facts, captured.weights, "cpu", out, options)
    return ArtifactReader(out).weight_plan()


def _array(checkpoint: Path, file: str, name: str) -> np.ndarray[Any, Any]:
    with safe_open(checkpoint / file, framework="pt") as handle:
        tensor: torch.Tensor = handle.get_tensor(name)
    kinds = {torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn, torch.bfloat16: ml_dtypes.bfloat16}
    if tensor.dtype not in kinds:
        return tensor.numpy()
    raw = tensor.view(torch.uint8).numpy()
    return raw.view(kinds[tensor.dtype]).reshape(tensor.shape)


def _value(checkpoint: Path, source: Source) -> Value:
    values = _array(checkpoint, source.file, source.tensor)
    if source.scale is None:
        return values
    return Scaled(values, _array(checkpoint, source.scale.file, source.scale.tensor), 128, 128)


def _split(plan: WeightPlan) -> Iterator[tuple[str, StoredWeight]]:
    """Every stored weight that ranks split, with its layer's prefix."""
    for prefix, group in plan.groups.items():
        for stored in plan.stored[group]:
            if any(isinstance(step, Split) for step in stored.steps):
                yield prefix, stored


def _bytes(array: np.ndarray[Any, Any]) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def test_each_rank_loads_its_slices(checkpoint: Path, plan: WeightPlan) -> None:
    driver = CpuDriver(CPU, no_kernels, {})
    kinds: set[str] = set()
    for rank in RANKS:
        loaded = load_weights(plan, checkpoint, driver, rank)
        for prefix, stored in _split(plan):
            parts = [
                [_value(checkpoint, s) for s in plan.sources[prefix + p.name]] for p in stored.parts
            ]
            want = stored_weight(stored, parts, rank)
            assert want.shape == stored.shape
            assert loaded[prefix, stored.name].tobytes() == _bytes(want), stored.name
            kinds |= {part.name.rsplit(".", 2)[-2] for part in stored.parts}
    assert kinds == {
        "q_b_proj", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"
    }  # fmt: skip


def test_slices_are_the_whole_cut_in_rank_order(checkpoint: Path, plan: WeightPlan) -> None:
    for prefix, stored in _split(plan):
        if (
            len(stored.parts) > 1
            or stored.is_scale
            or any(isinstance(s, Transpose | Tile) for s in stored.steps)
        ):
            continue
        names = [prefix + part.name for part in stored.parts]
        parts = [[_value(checkpoint, s) for s in plan.sources[name]] for name in names]
        (axis,) = (s.axis for s in stored.steps if isinstance(s, Split))
        slices = [stored_weight(stored, parts, rank) for rank in RANKS]
        shape = list(stored.shape)
        shape[axis] *= 2
        whole = _whole(stored, tuple(shape), parts)
        assert _bytes(np.concatenate(slices, axis)) == _bytes(whole)


def _whole(stored: StoredWeight, shape: tuple[int, ...], parts: list[list[Value]]) -> Any:
    one = StoredWeight(
        name=stored.name, dtype=stored.dtype, shape=shape, steps=stored.steps, parts=stored.parts
    )
    return stored_weight(one, parts, ALONE)


@pytest.mark.parametrize(
    ("extent", "block", "bounds"),
    [
        (256, 1, [(0, 128), (128, 256)]),
        (512, 128, [(0, 2), (2, 4)]),  # whole blocks
        (128, 128, [(0, 1), (0, 1)]),  # both slices lie in one block
        (64, 128, [(0, 1), (0, 1)]),
    ],
)
def test_bounds_name_the_blocks_that_a_slice_lies_in(
    extent: int, block: int, bounds: list[tuple[int, int]]
) -> None:
    assert [rank.bounds(extent, block) for rank in RANKS] == bounds
    assert ALONE.bounds(extent) == (0, extent)
