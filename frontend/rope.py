"""Rotary-embedding settings in both spellings of `config.json`. Computes no angle."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lostwax.frontend.config_fields import ConfigError, Fields, shown
from lostwax.frontend.known_fields import require_names
from lostwax.frontend.spellings import disagree

SPELLINGS = ("rope_scaling", "rope_parameters")
"""The official object and what transformers 5 writes."""
DEFAULT_THETA = 10000.0
NAMES = {
    "default": frozenset(("rope_theta", "rope_type", "type")),
    "yarn": frozenset({
        "rope_theta", "rope_type", "type", "factor", "original_max_position_embeddings",
        "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
    }),
}  # fmt: skip
"""The settings of each implemented type."""


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
    """From `rope_scaling` with `rope_theta`, or from `rope_parameters` (transformers 5).

    An empty object says nothing, as in transformers. Where both stand they must mean the same;
    transformers 5.23 would take `rope_scaling`.
    """
    found = {
        name: _read(fields, fields.child(name), dim, max_context)
        for name in SPELLINGS
        if fields.raw.get(name) not in (None, {})
    }
    if not found:
        return _plain(dim, fields.number("rope_theta", DEFAULT_THETA), max_context)
    first, *rest = found.values()
    if any(rope != first for rope in rest):
        old, new = SPELLINGS
        raise disagree(old, fields.raw[old], new, fields.raw[new])
    name = "original_max_position_embeddings"
    if fields.integer(name, first.original_len) != first.original_len:
        raise disagree(name, fields.raw[name], f"{next(iter(found))}.{name}", first.original_len)
    return first


def _plain(dim: int, theta: float, max_context: int) -> Rope:
    return Rope(dim, theta, 1.0, max_context, 32.0, 1.0, 1.0, 1.0)


def _read(fields: Fields, settings: Fields, dim: int, max_context: int) -> Rope:
    kind = _kind(settings)
    settings.only("truncate", True)
    settings.only("partial_rotary_factor", 1)
    if kind == "default":
        settings.only("factor", 1)
    require_names(settings, NAMES[kind] | {"partial_rotary_factor", "factor"})
    outer = fields.number("rope_theta", DEFAULT_THETA)
    theta = settings.number("rope_theta", outer)
    if theta <= 1:
        raise ConfigError(f"{settings.path}rope_theta is {theta}, wants more than 1")
    if theta != outer and fields.raw.get("rope_theta") is not None:
        raise disagree("rope_theta", outer, f"{settings.path}rope_theta", theta)
    return _plain(dim, theta, max_context) if kind == "default" else _yarn(settings, dim, theta)


def _kind(settings: Fields) -> str:
    kind, old = settings.raw.get("rope_type"), settings.raw.get("type")
    if kind is not None and old is not None and kind != old:
        raise disagree(f"{settings.path}rope_type", kind, f"{settings.path}type", old)
    if kind is None:
        kind = "default" if old is None else old
    if not isinstance(kind, str) or kind not in NAMES:
        raise ConfigError(
            f"{settings.path}rope_type is {shown(kind)}; lostwax implements 'yarn' only"
        )
    return kind


def _yarn(settings: Fields, dim: int, theta: float) -> Rope:
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
