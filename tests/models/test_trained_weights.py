"""The trained weights as files: the official format, light enough to clone."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from trained_fixtures import TRAINED

from lostwax.frontend.checkpoint import open_checkpoint

SUFFIX = "_scale_inv"
MAX_BYTES, MAX_SHARD_BYTES = 36_000_000, 15_000_000


@cache
def stored() -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(TRAINED.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def config() -> dict[str, Any]:
    return json.loads((TRAINED / "config.json").read_text())


def test_every_tensor_is_as_the_official_format_has_it() -> None:
    checkpoint = open_checkpoint(TRAINED)  # checks names, shapes and formats
    assert checkpoint.config.num_hidden_layers == config()["num_hidden_layers"]
    assert checkpoint.config.num_nextn_predict_layers == 1


def test_the_files_are_light() -> None:
    sizes = [path.stat().st_size for path in TRAINED.glob("*.safetensors")]
    assert max(sizes) <= MAX_SHARD_BYTES
    assert sum(sizes) <= MAX_BYTES


def test_the_index_names_every_tensor_and_its_shard() -> None:
    index = json.loads((TRAINED / "model.safetensors.index.json").read_text())
    for file in TRAINED.glob("*.safetensors"):
        assert {n for n, f in index["weight_map"].items() if f == file.name} == set(load_file(file))
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in stored().values())


def test_linear_weights_are_fp8_with_a_scale_a_block() -> None:
    block = config()["quantization_config"]["weight_block_size"][0]
    eights = {n: t for n, t in stored().items() if t.dtype == torch.float8_e4m3fn}
    assert {n + SUFFIX for n in eights} == {n for n in stored() if n.endswith(SUFFIX)}
    assert sum(t.numel() for t in eights.values()) > 0.7 * sum(t.numel() for t in stored().values())
    for name, tensor in eights.items():
        scale = stored()[name + SUFFIX]
        assert scale.dtype == torch.float32
        assert list(scale.shape) == [-(-size // block) for size in tensor.shape], name
        if config()["quantization_config"]["scale_fmt"] == "ue8m0":
            assert (torch.frexp(scale).mantissa == 0.5).all(), name  # powers of two


def test_the_values_are_finite_and_use_the_range() -> None:
    for name, tensor in stored().items():
        values = tensor.float()
        assert values.isfinite().all(), name
        if tensor.dtype == torch.float8_e4m3fn:
            assert 128 <= values.abs().max() <= 448, name  # a power of two below the largest


def test_embedding_and_head_are_stored_once() -> None:
    """The MTP layer shares the main model's."""
    layer = f"model.layers.{config()['num_hidden_layers']}."
    shared = ("embed_tokens", "shared_head.head")
    assert any(name.startswith(layer) for name in stored())
    assert not any(name.startswith(layer) and s in name for name in stored() for s in shared)
