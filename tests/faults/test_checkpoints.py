"""A damaged or wrong checkpoint stops the compile with one sentence and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import QUICK, Run, listing, one_sentence
from safetensors.numpy import load_file, save_file

NORM = "model.layers.0.input_layernorm.weight"


def _only_shard(folder: Path) -> Path:
    (shard,) = folder.glob("*.safetensors")
    return shard


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        shard = _only_shard(folder)
        shard.write_bytes(change(shard.read_bytes()))

    return apply


def _tensors(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change tensors, and the index with them, as a faulty converter would."""

    def apply(folder: Path) -> None:
        shard = _only_shard(folder)
        tensors: dict[str, Any] = load_file(shard)
        change(tensors)
        save_file(tensors, shard)
        index = {"weight_map": dict.fromkeys(tensors, shard.name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return apply


def _config(**changes: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


def _flip_header(data: bytes) -> bytes:
    return data[:8] + bytes([data[8] ^ 1]) + data[9:]


def _flip_offset(data: bytes) -> bytes:
    at = data.index(b'"data_offsets":[') + len(b'"data_offsets":[')
    return data[:at] + b"9" + data[at + 1 :]


def _cut(data: bytes) -> bytes:
    return data[:-100]


def _cut_header(data: bytes) -> bytes:
    return data[:100]


def _transpose(tensors: dict[str, Any]) -> None:
    name = "model.layers.0.mlp.gate_proj.weight"
    tensors[name] = np.zeros((3, 5), np.float32)


def _retype(tensors: dict[str, Any]) -> None:
    tensors[NORM] = tensors[NORM].astype(np.float16)


def _drop(tensors: dict[str, Any]) -> None:
    del tensors[NORM]


def _generation(text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "generation_config.json").write_text(text)

    return apply


def _one_layer_more(tensors: dict[str, Any]) -> None:
    tensors["model.layers.2.input_layernorm.weight"] = tensors[NORM]


def _unlink(folder: Path) -> None:
    _only_shard(folder).unlink()


@dataclass(frozen=True)
class Fault:
    """What is done to a checkpoint, and words of the sentence about it."""

    apply: Callable[[Path], None]
    culprit: str
    remedy: str


FAULTS = {
    "data cut short": Fault(_bytes(_cut), "model-00001-of-00001.safetensors", "download it again"),
    "header cut short": Fault(_bytes(_cut_header), "is cut short", "download it again"),
    "a bit of the header": Fault(_bytes(_flip_header), "header is not JSON", "download it again"),
    "an offset": Fault(_bytes(_flip_offset), "model-00001-of-00001.safetensors", "download"),
    "a missing shard": Fault(_unlink, "model-00001-of-00001.safetensors", "is not in"),
    "a missing tensor": Fault(_tensors(_drop), NORM, "download the checkpoint's other shards"),
    "a wrong shape": Fault(_tensors(_transpose), "[3, 5]", "must come from one checkpoint"),
    "a wrong dtype": Fault(_tensors(_retype), NORM, "wants bf16 or f32"),
    "another architecture": Fault(
        _config(model_type="llama", architectures=["LlamaForCausalLM"]), "llama", "deepseek_v32"
    ),
    "another size": Fault(_config(num_hidden_layers=3), "model.layers.2", "num_hidden_layers"),
    "another rank": Fault(_config(q_lora_rank=40), "q_a_proj", "q_lora_rank"),
    "a layer more": Fault(_tensors(_one_layer_more), "model.layers.2", "num_hidden_layers"),
    "shared selections": Fault(_config(index_topk_freq=4), "index_topk_freq is 4", "software"),
    "an unknown field": Fault(_config(hops=2), "hops is 2", "remove it from config.json"),
    "two rope settings": Fault(
        _config(rope_parameters={"rope_type": "default"}), "rope_parameters", "remove the wrong"
    ),
    "no end token": Fault(_config(eos_token_id=64), "eos_token_id 64", "vocab_size is 64"),
    "no end token elsewhere": Fault(
        _generation('{"eos_token_id": [1, 64]}'), "generation_config.json", "vocab_size is 64"
    ),
    "no JSON elsewhere": Fault(_generation("{"), "generation_config.json", "download it again"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_compile_names_the_culprit_and_leaves_nothing(
    run: Run, small_checkpoint: Path, tmp_path: Path, name: str
) -> None:
    fault = FAULTS[name]
    folder = shutil.copytree(small_checkpoint, tmp_path / "ckpt")
    fault.apply(folder)
    before = listing(tmp_path)
    status, out, err = run("compile", folder, "-o", tmp_path / "art", *QUICK)
    assert (status, out) == (1, "")
    sentence = one_sentence(err)
    assert fault.culprit in sentence
    assert fault.remedy in sentence
    assert listing(tmp_path) == before


def test_compile_says_once_what_it_does_not_read(
    run: Run, small_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(small_checkpoint, tmp_path / "ckpt")

    def buffers(tensors: dict[str, Any]) -> None:
        for layer in range(2):
            name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            tensors[name] = np.zeros(8, np.float32)

    _tensors(buffers)(folder)
    _generation('{"eos_token_id": [3, 1]}')(folder)
    status, _, err = run("compile", folder, "-o", tmp_path / "art", *QUICK)
    assert status == 0
    said = [line.strip() for line in err.splitlines() if "not read" in line]
    assert said == [
        "tensors that are not read: 2 rotary_emb buffers (the rope settings give their values)"
    ]
    manifest = json.loads((tmp_path / "art" / "manifest.json").read_text())
    assert manifest["model"]["eos_token_ids"] == [3, 1]
