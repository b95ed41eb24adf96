"""Rotary-embedding settings in both spellings of `config.json`. Computes no angle."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lostwax.frontend.config_fields import ConfigError, Fields


@dataclass(frozen=True, slots=True)
class Rope:
    """YaRN-scaled rotary embedding over `dim` elements; factor 1 is plain RoPE."""

    dim: int
    theta: float
    factor: float
    original_len: int
    beta_fast: float
    beta_slow: float
    magnitude: float
    """Multiplier of cos and sin."""
    softmax_mscale: float
    """m of the softmax scale, which is multiplied by m squared."""


def read_rope(fields: Fields, dim: int, max_context: int) -> Rope:
    """From `rope_parameters` (transformers 5), or from `rope_theta` and `rope_scaling`."""
    if fields.raw.get("rope_parameters") is not None:
        settings = fields.child("rope_parameters")
        theta = settings.number("rope_theta", fields.number("rope_theta", 10000.0))
    else:
        theta = fields.number("rope_theta", 10000.0)
        if fields.raw.get("rope_scaling") is None:
            settings = Fields({"type": "default"}, "rope_scaling.")
        else:
            settings = fields.child("rope_scaling")
    kind = settings.raw.get("rope_type", settings.raw.get("type", "default"))
    if kind == "default":
        return Rope(dim, theta, 1.0, max_context, 32.0, 1.0, 1.0, 1.0)
    if kind != "yarn":
        raise ConfigError(f"{settings.path}rope_type is {kind!r}; lostwax implements 'yarn' only")
    settings.only("truncate", True)
    factor = settings.number("factor")
    mscale, mscale_all = settings.raw.get("mscale"), settings.raw.get("mscale_all_dim")
    if settings.raw.get("attention_factor") is not None:
        magnitude = settings.number("attention_factor")
    elif mscale and mscale_all:
        magnitude = _mscale(factor, settings.number("mscale"))
        magnitude /= _mscale(factor, settings.number("mscale_all_dim"))
    else:
        magnitude = _mscale(factor, 1.0)
    return Rope(
        dim=dim,
        theta=theta,
        factor=factor,
        original_len=settings.integer("original_max_position_embeddings"),
        beta_fast=settings.number("beta_fast", 32.0),
        beta_slow=settings.number("beta_slow", 1.0),
        magnitude=magnitude,
        softmax_mscale=_mscale(factor, settings.number("mscale_all_dim")) if mscale_all else 1.0,
    )


def _mscale(factor: float, mscale: float) -> float:
    """0.1 m ln(factor) + 1 (YaRN, section 3.4, with DeepSeek's m)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0
