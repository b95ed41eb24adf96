"""transformers' DeepseekV32ForCausalLM in fp32 as the oracle of parity tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

Model = Any  # transformers types its models in part only

SCALE_SUFFIX = "_scale_inv"
BLOCK = 128


def hf_model(checkpoint_dir: Path) -> Model:
    """The checkpoint in fp32, eager; FP8 weights are dequantised first."""
    from transformers import DeepseekV32Config, DeepseekV32ForCausalLM

    config: Any = DeepseekV32Config.from_pretrained(checkpoint_dir)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.float32
    model: Model = DeepseekV32ForCausalLM.from_pretrained(
        None,
        config=config,
        state_dict=dequantised(checkpoint_dir),
        attn_implementation="eager",
        dtype=torch.float32,
    )
    return model.eval()


def hf_logits(model: Model, token_lists: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits [tokens, vocab] of each list, each run by itself without padding."""
    with torch.no_grad():
        return [
            model(torch.tensor([list(tokens)]), use_cache=False).logits[0].float()
            for tokens in token_lists
        ]


def hf_greedy(model: Model, tokens: Sequence[int], num_new: int) -> list[int]:
    """The next `num_new` greedy tokens, by full prefill each time (no cache to trust)."""
    context = list(tokens)
    for _ in range(num_new):
        context.append(int(hf_logits(model, [context])[0][-1].argmax()))
    return context[len(tokens) :]


def dequantised(checkpoint_dir: Path) -> dict[str, Tensor]:
    """Every tensor of the checkpoint in fp32, block scales multiplied in."""
    stored: dict[str, Tensor] = {}
    for file in sorted(checkpoint_dir.glob("*.safetensors")):
        stored.update(load_file(file))
    return {
        name: _dequantise(tensor, stored.get(name + SCALE_SUFFIX))
        for name, tensor in stored.items()
        if not name.endswith(SCALE_SUFFIX)
    }


def _dequantise(tensor: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return tensor.float()
    rows, cols = tensor.shape
    spread = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return tensor.float() * spread[:rows, :cols]
