"""How the checkpoint stores each logical weight. Knows formats, not files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lostwax.frontend.config import ConfigError, ModelConfig
from lostwax.frontend.tensors import layer_weights, model_weights, mtp_weights
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, StoredFormat

Formats = Mapping[str, StoredFormat]
"""Logical weight name to stored format."""


def nominal_formats(config: ModelConfig) -> dict[str, StoredFormat]:
    """What the configuration promises, where no checkpoint is at hand."""
    formats: dict[str, StoredFormat] = {}
    mtp = [
        w for n in config.mtp_layers for w in (*layer_weights(config, n), *mtp_weights(config, n))
    ]
    for weight in (*model_weights(config), *mtp):
        if weight.name.endswith(".e_score_correction_bias"):
            formats[weight.name] = StoredFormat(dtype="f32")
        elif config.quantised and weight.quantisable:
            formats[weight.name] = StoredFormat(
                dtype="f8E4M3FN", scale=FP8_BLOCKS, stacked=weight.is_stacked
            )
        else:
            formats[weight.name] = StoredFormat(dtype=config.dtype, stacked=weight.is_stacked)
    return formats


def format_of_kind(formats: Formats, kind: str, prefixes: Iterable[str], name: str) -> StoredFormat:
    """The one format of weight `name` in all layers of a block kind."""
    first: tuple[str, StoredFormat] | None = None
    for prefix in prefixes:
        stored = formats[prefix + name]
        if first is None:
            first = (prefix, stored)
        elif stored != first[1]:
            raise ConfigError(
                f"{prefix}{name} is stored as {stored}, {first[0]}{name} as {first[1]}: all layers"
                f" of block kind {kind!r} must store a weight alike; convert one of them"
            )
    if first is None:
        raise ValueError(f"block kind {kind!r} has no layer")
    return first[1]
