"""How the checkpoint stores each logical weight. Knows formats, not files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lostwax.frontend.config import FP8_BLOCK, ConfigError, ModelConfig
from lostwax.frontend.tensors import layer_weights, model_weights, mtp_weights

FP8_BLOCKS = f"f8E4M3FN:{FP8_BLOCK}x{FP8_BLOCK}"
"""`lostwax.stored` of a block-scaled weight; plain ones are `bf16` or `f32`."""

Formats = Mapping[str, str]
"""Logical weight name to stored format."""


def nominal_formats(config: ModelConfig) -> dict[str, str]:
    """What the configuration promises, where no checkpoint is at hand."""
    formats: dict[str, str] = {}
    mtp = [
        w for n in config.mtp_layers for w in (*layer_weights(config, n), *mtp_weights(config, n))
    ]
    for weight in (*model_weights(config), *mtp):
        if weight.name.endswith(".e_score_correction_bias"):
            formats[weight.name] = "f32"
        else:
            fp8 = config.quantised and weight.quantisable
            formats[weight.name] = FP8_BLOCKS if fp8 else config.dtype
    return formats


def format_of_kind(formats: Formats, kind: str, prefixes: Iterable[str], name: str) -> str:
    """The one format of weight `name` in all layers of a block kind."""
    first: tuple[str, str] | None = None
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
