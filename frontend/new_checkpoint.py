"""Writes a random checkpoint in the official Hugging Face format. Trains and loads nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, cast

import ml_dtypes
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from lostwax.frontend.checkpoint import INDEX_FILE, CheckpointError
from lostwax.frontend.config import ARCHITECTURE, MODEL_TYPE, ModelConfig, read_config
from lostwax.frontend.random_weights import Array, quantise_blocks, random_tensor
from lostwax.frontend.tensors import (
    SCALE_SUFFIX,
    Weight,
    layer_weights,
    model_weights,
    mtp_copies,
    mtp_weights,
)
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, scale_shape

Format = Literal["fp8", "bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class _Planned:
    """One tensor to write, with its scales where it is quantised."""

    name: str
    shape: tuple[int, ...]
    stored: Literal["fp8", "bf16", "fp32"]

    @property
    def num_bytes(self) -> int:
        width = {"fp8": 1, "bf16": 2, "fp32": 4}[self.stored]
        scales = 4 * prod(scale_shape(FP8_BLOCKS, self.shape)) if self.stored == "fp8" else 0
        return width * prod(self.shape) + scales


def new_checkpoint(
    config_file: Path, out: Path, *, seed: int, format: Format, shard_bytes: int = 256 << 20
) -> None:
    """Write config, shards and index into `out`. The same arguments give the same bytes.

    A seed gives the same values in every format, rounded to it. With `num_nextn_predict_layers`
    the MTP layers' tensors are written too.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists and is not empty; choose another folder or remove it")
    config = read_config(config_file)
    raw = cast("dict[str, Any]", json.loads(config_file.read_text(encoding="utf-8")))
    scale_fmt = config.scale_fmt if config.quantised else "ue8m0"
    shards = _shards(config, format, shard_bytes)
    out.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = dict(_tensors(shard, seed, power_of_two=scale_fmt is not None))
        weight_map.update(dict.fromkeys(tensors, file))
        total += sum(t.nbytes for t in tensors.values())
        save_file(tensors, out / file, {"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(out / INDEX_FILE, index)
    _write_json(out / "config.json", _config(raw, format, scale_fmt))


def _planned(config: ModelConfig, format: Format) -> Iterator[_Planned]:
    weights: list[Weight] = list(model_weights(config))
    for layer in config.mtp_layers:
        weights += [*layer_weights(config, layer), *mtp_weights(config, layer)]
        weights += mtp_copies(config, layer)
    for weight in weights:
        stored: Format = "bf16" if format == "fp8" and not weight.quantisable else format
        if weight.name.endswith(".e_score_correction_bias"):
            stored = "fp32"  # as the official checkpoints do
        for name in weight.tensors:
            yield _Planned(name, weight.shape, stored)


def _shards(config: ModelConfig, format: Format, shard_bytes: int) -> list[list[_Planned]]:
    shards: list[list[_Planned]] = [[]]
    used = 0
    for tensor in _planned(config, format):
        if shards[-1] and used + tensor.num_bytes > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += tensor.num_bytes
    return shards


def _tensors(
    planned: list[_Planned], seed: int, *, power_of_two: bool
) -> Iterator[tuple[str, Array]]:
    for tensor in planned:
        values = random_tensor(tensor.name, tensor.shape, seed)
        if tensor.stored == "fp32":
            yield tensor.name, values
        elif tensor.stored == "bf16":
            yield tensor.name, values.astype(ml_dtypes.bfloat16)
        else:
            quantised, scale = quantise_blocks(values, power_of_two=power_of_two)
            yield tensor.name, quantised
            yield tensor.name + SCALE_SUFFIX, scale


def _config(raw: dict[str, Any], format: Format, scale_fmt: str | None) -> dict[str, Any]:
    """The given configuration, telling the truth about the format."""
    config = {**raw, "architectures": [ARCHITECTURE], "model_type": MODEL_TYPE}
    config.pop("dtype", None)
    config.pop("quantization_config", None)
    config["torch_dtype"] = "float32" if format == "fp32" else "bfloat16"
    if format == "fp8":
        config["quantization_config"] = {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [FP8_BLOCKS.rows, FP8_BLOCKS.cols],
            **({"scale_fmt": scale_fmt} if scale_fmt else {}),
        }
    return config


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
