"""`new-checkpoint` writes the official format: transformers loads it, and a seed decides it all."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import dequantised, hf_logits, hf_model
from safetensors.torch import load_file
from tiny import MTP, ODD, PLAIN, WIDE, Config, write_config

from lostwax.frontend.checkpoint import CheckpointError, open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint


def make(folder: Path, config: Config, **options: Any):
    source = write_config(folder / "source", config)
    options = {"seed": 0, "format": "fp32"} | options
    new_checkpoint(source, folder / "checkpoint", **options)
    return folder / "checkpoint"


def stored(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


@pytest.mark.parametrize("config", [PLAIN, ODD, MTP], ids=["plain", "odd", "mtp"])
def test_transformers_loads_every_tensor_by_its_official_name(tmp_path: Path, config: Config):
    from transformers import DeepseekV32ForCausalLM

    folder = make(tmp_path, config, shard_bytes=1 << 20)
    load: Any = DeepseekV32ForCausalLM.from_pretrained  # typed as if it gave the model alone
    model, report = load(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    mtp = [f"model.layers.{n}." for n in open_checkpoint(folder).config.mtp_layers]
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert all(name.startswith(tuple(mtp)) for name in report["unexpected_keys"])
    (logits,) = hf_logits(model, [[5, 6, 7]])
    (again,) = hf_logits(hf_model(folder), [[5, 6, 7]])
    assert torch.equal(logits, again)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path):
    def digests(folder: Path):
        files = sorted(folder.iterdir())
        return [(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]

    first = make(tmp_path / "a", ODD, format="fp8", shard_bytes=1 << 18)
    second = make(tmp_path / "b", ODD, format="fp8", shard_bytes=1 << 18)
    other = make(tmp_path / "c", ODD, format="fp8", shard_bytes=1 << 18, seed=1)
    assert digests(first) == digests(second)
    assert digests(first) != digests(other)
    assert len(list(first.glob("*.safetensors"))) > 1


def test_a_seed_gives_the_same_values_in_every_format(tmp_path: Path):
    exact = stored(make(tmp_path / "fp32", WIDE))
    rounded = stored(make(tmp_path / "bf16", WIDE, format="bf16"))
    quantised = dequantised(make(tmp_path / "fp8", WIDE, format="fp8"))
    for name, values in exact.items():
        wide = rounded[name]
        expected = torch.float32 if name.endswith("correction_bias") else torch.bfloat16
        assert wide.dtype == expected
        torch.testing.assert_close(wide, values.to(expected), rtol=0, atol=0)
        error = (quantised[name] - values).abs().max()
        assert error <= 2**-4 * values.abs().max()  # half a step of three mantissa bits


@pytest.mark.parametrize("scale_fmt", ["ue8m0", None])
def test_scales_are_powers_of_two_exactly_where_the_config_says_so(
    tmp_path: Path, scale_fmt: str | None
):
    quant = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    quant |= {"scale_fmt": scale_fmt} if scale_fmt else {}
    folder = make(tmp_path, ODD | {"quantization_config": quant}, format="fp8")
    written = json.loads((folder / "config.json").read_text())
    assert written["quantization_config"].get("scale_fmt") == scale_fmt
    scales = [t.numpy() for n, t in stored(folder).items() if n.endswith("_scale_inv")]
    powers = [bool(np.all(np.frexp(s)[0] == 0.5)) for s in scales]
    assert all(powers) if scale_fmt else not any(powers)


def test_no_parameter_has_its_neutral_value(tmp_path: Path):
    for name, values in stored(make(tmp_path, ODD)).items():
        assert not torch.all(values == 0), name
        assert not torch.all(values == 1), name


def test_mtp_layers_repeat_embedding_and_head(tmp_path: Path):
    tensors = stored(make(tmp_path, MTP))
    embedding = tensors["model.layers.3.embed_tokens.weight"]
    assert torch.equal(embedding, tensors["model.embed_tokens.weight"])
    assert torch.equal(tensors["model.layers.3.shared_head.head.weight"], tensors["lm_head.weight"])


def test_an_existing_folder_is_never_written_into(tmp_path: Path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "precious").write_text("")
    with pytest.raises(CheckpointError, match="not empty"):
        make(tmp_path, ODD)
