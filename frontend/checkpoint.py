"""Opens a checkpoint folder and checks every tensor against the configuration. Reads no data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import structs

from lostwax.frontend.chat_encoding import read_chat_encoding
from lostwax.frontend.config import ARCHITECTURE, MODEL_TYPE, ModelConfig, read_config
from lostwax.frontend.config_fields import shown
from lostwax.frontend.misfits import extra_tensor, harmless, missing_tensor
from lostwax.frontend.safetensors_header import (
    HeaderError,
    TensorHeader,
    is_plain_name,
    read_header,
)
from lostwax.frontend.special_tokens import with_special_tokens
from lostwax.frontend.tensors import (
    SCALE_SUFFIX,
    Weight,
    layer_weights,
    model_weights,
    mtp_copies,
    mtp_weights,
)
from lostwax.ir.contract.model import ModelFacts, WeightTable
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, ScaleLayout, StoredFormat, scale_shape
from lostwax.ir.contract.weights import Source, StoredTensor

PAGE_TOKENS = 64
"""Tokens of a cache page, for every target so far."""
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
MAX_INDEX_BYTES = 100_000_000
PLAIN_DTYPES = ("bf16", "f32")
POWERS_OF_TWO = "f8E8M0FNU"
"""One byte a scale, its exponent: what `ue8m0` means, stored as such."""
SCALE_DTYPES = ("f32", POWERS_OF_TWO)


class CheckpointError(ValueError):
    """The folder is no whole checkpoint of this model; the message names tensor and remedy."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked checkpoint: where each logical weight lies and how it is stored."""

    folder: Path
    config: ModelConfig
    weights: WeightTable
    formats: Mapping[str, StoredFormat]
    mtp_tensors: tuple[str, ...]
    """Tensors of multi-token-prediction layers."""
    digest: str
    scale_fmt: str | None
    """How block scales were rounded: `ue8m0` where the configuration or their dtype says so."""
    notice: str | None
    """One line about tensors that are not read, None where all are."""

    @property
    def has_mtp(self) -> bool:
        """Whether the configuration promises one MTP layer and the files hold it."""
        return self.config.has_mtp and bool(self.mtp_tensors)

    def facts(self, page_tokens: int) -> ModelFacts:
        """What compiling and serving need to know."""
        encoding = read_chat_encoding(self.folder)
        return model_facts(self.config, self.digest, page_tokens, encoding)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read config and headers; CheckpointError or ConfigError where something does not fit."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; give the one that holds config.json")
    written = read_config(folder / "config.json")
    config = with_special_tokens(written, folder)
    tensors = _read_headers(folder)
    left = set(tensors)
    weights: WeightTable = {}
    formats: dict[str, StoredFormat] = {}
    for weight in model_weights(config):
        weights[weight.name], formats[weight.name] = _check(config, tensors, weight, left)
    mtp = _check_mtp(config, tensors, left, weights, formats)
    unread = harmless(config, left)
    left -= unread.names
    if left:
        first = min(left)
        raise CheckpointError(
            f"{folder} holds {len(left)} tensors that the configuration does not ask for, such as"
            f" {first}: {extra_tensor(config, first)}"
        )
    return Checkpoint(
        folder,
        config,
        weights,
        formats,
        mtp,
        checkpoint_digest(written, config, tensors),
        _scale_fmt(config, tensors),
        unread.notice,
    )


def _scale_fmt(config: ModelConfig, tensors: Mapping[str, TensorHeader]) -> str | None:
    powers = any(header.dtype == POWERS_OF_TWO for header in tensors.values())
    return "ue8m0" if powers else config.scale_fmt


def model_facts(
    config: ModelConfig, digest: str, page_tokens: int, chat_encoding: str | None = None
) -> ModelFacts:
    """Facts of a model whose content has this digest. The name does not say where it lies."""
    return ModelFacts(
        name=f"{MODEL_TYPE}-{digest[:12]}",
        architecture=ARCHITECTURE,
        digest=digest,
        vocab_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        index_topk=config.index_topk,
        max_context=config.max_position_embeddings,
        page_tokens=page_tokens,
        bos_token_id=config.bos_token_id,
        eos_token_ids=config.eos_token_ids,
        chat_encoding=chat_encoding,
    )


def _read_headers(folder: Path) -> dict[str, TensorHeader]:
    index = folder / INDEX_FILE
    try:
        if not index.is_file():
            single = folder / SINGLE_FILE
            if not single.is_file():
                raise CheckpointError(f"{folder} has neither {INDEX_FILE} nor {SINGLE_FILE}")
            return read_header(single)
        weight_map = _read_index(index)
        tensors: dict[str, TensorHeader] = {}
        for name in sorted(set(weight_map.values())):
            path = folder / name
            if not path.is_file():
                raise CheckpointError(
                    f"{INDEX_FILE} names {name}, which is not in {folder}; download it"
                )
            for tensor, header in read_header(path).items():
                if weight_map.get(tensor) != name:
                    listed = weight_map.get(tensor, "no file")
                    raise CheckpointError(f"{tensor} lies in {name}; {INDEX_FILE} says {listed}")
                tensors[tensor] = header
    except HeaderError as e:
        raise CheckpointError(str(e)) from e
    for tensor, name in weight_map.items():
        if tensor not in tensors:
            raise CheckpointError(f"{INDEX_FILE} says that {tensor} lies in {name}; it does not")
    return tensors


def _read_index(index: Path) -> dict[str, str]:
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise CheckpointError(f"{index} is larger than {MAX_INDEX_BYTES} bytes: no index")
    try:
        raw: Any = json.loads(index.read_text(encoding="utf-8"))
        weight_map: dict[Any, Any] = dict(raw["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise CheckpointError(f"{index} is no index with a weight_map ({e}); download it") from e
    for tensor, name in weight_map.items():
        if not is_plain_name(tensor):
            raise CheckpointError(f"{index}: {shown(tensor)} is no tensor's name; download it")
        if not isinstance(name, str) or not is_plain_name(name) or Path(name).name != name:
            raise CheckpointError(
                f"{index}: {tensor} lies in {shown(name)}, wants a plain file name"
            )
    return weight_map


def _check(
    config: ModelConfig, tensors: Mapping[str, TensorHeader], weight: Weight, left: set[str]
) -> tuple[tuple[Source, ...], StoredFormat]:
    """The sources of one logical weight, and its one stored format."""
    sources: list[Source] = []
    stored: StoredFormat | None = None
    for name in weight.tensors:
        source = _source(config, tensors, name, weight)
        scale = _layout(source.scale)
        this = StoredFormat(dtype=source.dtype, scale=scale, stacked=weight.is_stacked)
        if stored is not None and this != stored:
            raise CheckpointError(
                f"{name} is stored as {this}, {weight.tensors[0]} as {stored}: the experts of a"
                " layer must be stored alike; convert one of them"
            )
        stored = this
        sources.append(source)
        left.discard(name)
        if source.scale is not None:
            left.discard(source.scale.tensor)
    assert stored is not None  # a weight has a tensor
    return tuple(sources), stored


def _layout(scale: StoredTensor | None) -> ScaleLayout | None:
    return None if scale is None else structs.replace(FP8_BLOCKS, dtype=scale.dtype)


def _source(
    config: ModelConfig, tensors: Mapping[str, TensorHeader], name: str, weight: Weight
) -> Source:
    header = tensors.get(name)
    if header is None:
        remedy = missing_tensor(config, name, tensors.keys())
        raise CheckpointError(f"tensor {name} is missing; {remedy}")
    if header.shape != weight.shape:
        raise CheckpointError(
            f"{name} has shape {list(header.shape)}, the configuration says {list(weight.shape)}:"
            f" {_fields_at_fault(weight, header.shape)} in config.json must be the checkpoint's;"
            " config.json and weights must come from one checkpoint"
        )
    scale_name = name + SCALE_SUFFIX
    scale = tensors.get(scale_name)
    if header.dtype in PLAIN_DTYPES:
        if scale is not None:
            raise CheckpointError(f"{scale_name} scales {name}, which is {header.dtype}, not FP8")
        return Source(header.file, name, header.dtype, header.shape)
    if header.dtype != "f8E4M3FN" or not weight.quantisable:
        raise CheckpointError(
            f"{name} is stored as {header.dtype}; wants {' or '.join(PLAIN_DTYPES)}"
            + (f", or f8E4M3FN with {scale_name}" if weight.quantisable else "")
        )
    want = scale_shape(FP8_BLOCKS, weight.shape)
    if scale is None:
        raise CheckpointError(f"{name} is FP8, but its scales {scale_name} are missing")
    if scale.shape != want or scale.dtype not in SCALE_DTYPES:
        raise CheckpointError(
            f"{scale_name} is {scale.dtype} {list(scale.shape)}, wants {' or '.join(SCALE_DTYPES)}"
            f" {list(want)}: one scale a {FP8_BLOCKS.rows} x {FP8_BLOCKS.cols} block"
        )
    stored = StoredTensor(scale.file, scale_name, scale.dtype, scale.shape)
    return Source(header.file, name, header.dtype, header.shape, stored)


def _fields_at_fault(weight: Weight, shape: tuple[int, ...]) -> str:
    """The fields that give the axes that differ, all of them where the rank does."""
    axes = weight.axes
    if len(shape) == len(axes):
        axes = tuple(axis for axis, size in zip(axes, shape, strict=True) if axis.size != size)
    return " and ".join(dict.fromkeys(axis.fields for axis in axes))


def _check_mtp(
    config: ModelConfig,
    tensors: Mapping[str, TensorHeader],
    left: set[str],
    weights: WeightTable,
    formats: dict[str, StoredFormat],
) -> tuple[str, ...]:
    """Tensors of MTP layers; a checkpoint may have none of them (transformers writes none).

    Their copies of the embedding and the output projection are checked where they exist, and
    nothing reads them: the main model's are the same.
    """
    found: list[str] = []
    for layer in config.mtp_layers:
        prefix = f"model.layers.{layer}."
        present = {name for name in left if name.startswith(prefix)}
        if not present:
            continue
        for weight in mtp_copies(config, layer):
            if weight.name in present:
                _check(config, tensors, weight, left)
        for weight in (*layer_weights(config, layer), *mtp_weights(config, layer)):
            weights[weight.name], formats[weight.name] = _check(config, tensors, weight, left)
        found.extend(present - left)
    return tuple(sorted(found))


def checkpoint_digest(
    written: ModelConfig, config: ModelConfig, tensors: Mapping[str, TensorHeader]
) -> str:
    """sha256 of the configuration, of tensors, of end and begin tokens where another file says
    others."""
    lines = [written.digest]
    if config != written:
        lines.append(f"bos_token_id {config.bos_token_id} eos_token_ids {config.eos_token_ids}")
    lines += [f"{name} {h.dtype} {list(h.shape)} {h.file}" for name, h in sorted(tensors.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
