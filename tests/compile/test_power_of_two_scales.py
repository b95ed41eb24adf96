"""Block scales stored as exponents (F8_E8M0) give the bits that the same scales in f32 give."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_tensors import Tensors, change_config, change_tensors
from msgspec import structs
from small import PROMPT, SMALL, greedy
from tiny import write_config

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.checkpoint_content import CheckpointMismatch
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.load_weights import load_weights
from lostwax.cli.compile import compile_checkpoint
from lostwax.frontend.checkpoint import CheckpointError, open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.contract.weights import Cast, Dequantise, Select, Step, StoredWeight, WeightPlan

SUFFIX = "_scale_inv"
WEIGHT = "model.layers.0.self_attn.o_proj.weight"
SCALES = WEIGHT + SUFFIX


def _exponents(tensors: Tensors) -> None:
    for name in [n for n in tensors if n.endswith(SUFFIX)]:
        exact = tensors[name].to(torch.float8_e8m0fnu)
        assert torch.equal(exact.float(), tensors[name])
        tensors[name] = exact


def _set(name: str, value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = torch.full(tensors[name].shape, value).to(tensors[name].dtype)

    return change


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one FP8 checkpoint with f32 scales, and the same with exponents."""
    folder = tmp_path_factory.mktemp("scales")
    new_checkpoint(write_config(folder, SMALL), folder / "f32", seed=0, format="fp8")
    change_tensors(folder / "f32", lambda _: None)  # tensors in the same order
    shutil.copytree(folder / "f32", folder / "e8m0")
    change_tensors(folder / "e8m0", _exponents)
    return folder


@pytest.fixture
def both(scaled: Path, tmp_path: Path) -> Path:
    """Copies that a test may change."""
    return shutil.copytree(scaled, tmp_path / "both")


NAMES = ("f32", "e8m0")
Buffers = dict[tuple[str, str], bytes]


@pytest.fixture(scope="module")
def artifacts(scaled: Path) -> dict[str, Path]:
    """What the command makes of each."""
    for name in NAMES:
        compile_checkpoint(
            scaled / name,
            scaled / f"{name}.lostwax",
            target="cpu",
            dtype="bf16",
            max_context=512,
            max_tokens=64,
            max_reqs=2,
        )
    return {name: scaled / f"{name}.lostwax" for name in NAMES}


def _dequantised(plan: WeightPlan) -> WeightPlan:
    """The plan of an artifact that holds every weight in f32."""
    stored = {
        group: tuple(_in_f32(t) for t in tensors if not t.is_scale)
        for group, tensors in plan.stored.items()
    }
    return structs.replace(plan, stored=stored)


def _in_f32(stored: StoredWeight) -> StoredWeight:
    """Values dequantised where the plan keeps them, others cast."""
    first = stored.parts[0]
    if first.dtype == "f32":
        return stored
    wide: Step = Cast("f32") if first.scale is None else Dequantise("f32")
    steps = (wide, *(s for s in stored.steps if not isinstance(s, Select | Cast | Dequantise)))
    return structs.replace(stored, dtype="f32", steps=steps)


def _loaded(plan: WeightPlan, checkpoint: Path) -> Buffers:
    buffers = load_weights(plan, checkpoint, CpuDriver(CPU, no_kernels, {}))
    return {key: buffer.tobytes() for key, buffer in buffers.items()}


def test_a_model_with_exponents_for_scales_serves_the_same_bits(
    scaled: Path, artifacts: dict[str, Path]
) -> None:
    plans = [ArtifactReader(artifacts[name]).weight_plan() for name in NAMES]
    assert Cast("f32") in {s for t in plans[1].stored["moe"] for s in t.steps if t.is_scale}
    for made in (plans, [_dequantised(plan) for plan in plans]):
        f32, e8m0 = (_loaded(p, scaled / name) for p, name in zip(made, NAMES, strict=True))
        assert len(f32) > 40
        assert f32 == e8m0
    answers = [greedy(load(artifacts[name], checkpoint=scaled / name), PROMPT, 8) for name in NAMES]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("exponent", [-127, -126, 0, 127])
def test_every_exponent_is_read_exactly(
    both: Path, artifacts: dict[str, Path], exponent: int
) -> None:
    for name in NAMES:
        change_tensors(both / name, _set(SCALES, 2.0**exponent))
    f32, e8m0 = (
        _loaded(ArtifactReader(artifacts[name]).weight_plan(), both / name) for name in NAMES
    )
    assert f32 == e8m0
    scales = [
        v
        for (prefix, name), v in e8m0.items()
        if name.endswith(":scale") and (prefix + name).startswith(WEIGHT)
    ]
    assert [np.frombuffer(v, np.float32).tolist() for v in scales] == [[2.0**exponent]]


def test_the_byte_that_is_no_number_is_refused_with_its_tensor(
    both: Path, artifacts: dict[str, Path]
) -> None:
    change_tensors(both / "e8m0", _set(SCALES, float("nan")))
    plan = ArtifactReader(artifacts["e8m0"]).weight_plan()
    with pytest.raises(CheckpointMismatch, match=f"{SCALES} holds NaN"):
        _loaded(plan, both / "e8m0")


def test_stored_exponents_say_how_scales_are_rounded(both: Path) -> None:
    quant = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    for name, scale_fmt in (("f32", None), ("e8m0", "ue8m0")):
        change_config(both / name, quantization_config=quant)
        assert open_checkpoint(both / name).scale_fmt == scale_fmt


def test_exponents_where_no_scales_belong_are_refused(both: Path) -> None:
    name = "model.norm.weight"

    def spoil(tensors: Tensors) -> None:
        tensors[name] = torch.ones(tensors[name].shape).to(torch.float8_e8m0fnu)

    change_tensors(both / "e8m0", spoil)
    with pytest.raises(CheckpointError, match=f"{name} is stored as f8E8M0FNU"):
        open_checkpoint(both / "e8m0")
