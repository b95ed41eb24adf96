"""Writes and reads the official FP8 checkpoint: names, 128 x 128 blocks, shards. Knows no training.

The MTP layer's copies of embedding and head are left out: they equal the main ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipe.shape import Shape
from recipe.weights import Layer, Weights

BLOCK = 128
FP8_MAX = 448.0
SCALE_SUFFIX = "_scale_inv"
SHARD_BYTES = 15_000_000
_LINEAR = {
    "q_a_proj": "self_attn.q_a_proj", "q_b_proj": "self_attn.q_b_proj",
    "kv_a_proj": "self_attn.kv_a_proj_with_mqa", "kv_b_proj": "self_attn.kv_b_proj",
    "o_proj": "self_attn.o_proj", "index_wq_b": "self_attn.indexer.wq_b",
    "index_wk": "self_attn.indexer.wk",
}  # fmt: skip
_PLAIN = {
    "input_layernorm": "input_layernorm.weight",
    "post_attention_layernorm": "post_attention_layernorm.weight",
    "q_a_layernorm": "self_attn.q_a_layernorm.weight",
    "kv_a_layernorm": "self_attn.kv_a_layernorm.weight",
    "index_k_norm": "self_attn.indexer.k_norm.weight",
    "index_k_bias": "self_attn.indexer.k_norm.bias",
    "index_weights_proj": "self_attn.indexer.weights_proj.weight",
}
_TOP = {
    "embed_tokens": "model.embed_tokens.weight", "lm_head": "lm_head.weight",
    "norm": "model.norm.weight",
}  # fmt: skip
_MTP = {
    "enorm": "enorm.weight", "hnorm": "hnorm.weight", "eh_proj": "eh_proj.weight",
    "mtp_norm": "shared_head.norm.weight",
}  # fmt: skip
_MLP = ("gate_proj", "up_proj", "down_proj")
Named = tuple[str, Tensor, str]
"""Official name, the part of a parameter that it names, and how it is stored."""


def named_tensors(s: Shape, w: Weights) -> Iterator[Named]:
    """Views of every parameter under the official names."""
    for own, name in _TOP.items():
        yield name, getattr(w, own).data, "bf16"
    for number, layer in enumerate(w.layers):
        prefix = f"model.layers.{number}."
        for own, name in _PLAIN.items():
            yield prefix + name, getattr(layer, own).data, "f32" if "k_norm" in name else "bf16"
        for own, name in _LINEAR.items():
            yield f"{prefix}{name}.weight", getattr(layer, own).data, "fp8"
        yield from _mlp(s, layer, f"{prefix}mlp.")
    prefix = f"model.layers.{s.num_hidden_layers}."
    for own, name in _MTP.items():
        yield prefix + name, getattr(w, own).data, "bf16"


def _mlp(s: Shape, layer: Layer, prefix: str) -> Iterator[Named]:
    if layer.dense:
        for name in _MLP:
            yield f"{prefix}{name}.weight", getattr(layer, name).data, "fp8"
        return
    yield f"{prefix}gate.weight", layer.router.data, "bf16"
    yield f"{prefix}gate.e_score_correction_bias", layer.router_bias, "f32"
    for name in _MLP:
        stacked: Tensor = getattr(layer, name).data
        for expert in range(s.n_routed_experts):
            yield f"{prefix}experts.{expert}.{name}.weight", stacked[expert], "fp8"
        if s.n_shared_experts != 1:
            raise ValueError("writing more than one shared expert is not supported: use 1")
        yield f"{prefix}shared_experts.{name}.weight", stacked[-1], "fp8"


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """FP8 values and the power-of-two scale of each block, which multiplies them."""
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    largest = blocks.abs().amax((1, 3)).clamp(min=1e-4)
    scale = torch.exp2(torch.ceil(torch.log2(largest / FP8_MAX)))
    values = (padded / _spread(scale)).clamp(-FP8_MAX, FP8_MAX)[:rows, :columns]
    return values.to(torch.float8_e4m3fn), scale


def dequantise(values: Tensor, scale: Tensor) -> Tensor:
    """The numbers that FP8 values and block scales stand for."""
    rows, columns = values.shape
    return values.float() * _spread(scale)[:rows, :columns]


def _spread(scale: Tensor) -> Tensor:
    return scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)


@torch.no_grad()
def round_weights(s: Shape, w: Weights) -> None:
    """Replace every parameter by what the checkpoint will hold, so that this is evaluated."""
    for _, tensor, stored in named_tensors(s, w):
        if stored == "fp8":
            tensor.copy_(dequantise(*quantise(tensor)))
        elif stored == "bf16":
            tensor.copy_(tensor.bfloat16())


@torch.no_grad()
def write_checkpoint(s: Shape, w: Weights, folder: Path) -> None:
    """Shards of at most SHARD_BYTES, and their index."""
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor, stored in named_tensors(s, w):
        tensors = _stored(name, tensor, stored)
        size = sum(t.nbytes for t in tensors.values())
        if used + size > SHARD_BYTES:
            shards.append({})
            used = 0
        shards[-1].update(tensors)
        used += size
    folder.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(t.nbytes for shard in shards for t in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _stored(name: str, tensor: Tensor, stored: str) -> dict[str, Tensor]:
    tensor = tensor.detach().cpu().contiguous()
    if stored == "fp8":
        values, scale = quantise(tensor)
        return {name: values.contiguous(), name + SCALE_SUFFIX: scale.contiguous()}
    return {name: tensor.to(torch.bfloat16 if stored == "bf16" else torch.float32).clone()}


@torch.no_grad()
def read_checkpoint(s: Shape, w: Weights, folder: Path) -> None:
    """Fill the parameters from a checkpoint, FP8 or plain."""
    stored: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        stored |= load_file(file)
    for name, tensor, _ in named_tensors(s, w):
        scale = stored.get(name + SCALE_SUFFIX)
        value = stored[name] if scale is None else dequantise(stored[name], scale)
        tensor.copy_(value.to(tensor.dtype))
