"""Two names of one setting: brought to one, refused where both stand and disagree.

transformers lets one of the two win without a word, and which one differs from setting to setting
and from release to release. Whoever wrote both meant one of them; which, only they know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lostwax.frontend.config_fields import ConfigError, Fields, same, shown

OTHER_NAMES = {
    "num_local_experts": "n_routed_experts",
    "num_experts": "n_routed_experts",
    "num_mtp_layers": "num_nextn_predict_layers",
    "dtype": "torch_dtype",
}
"""transformers' other names, by the official ones."""

LAYER_TYPE = "indexed_attention"  # what transformers calls a layer with an indexer
INDEXER_TYPE = "full"  # an indexer that selects for itself


def one_spelling(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields under their official names."""
    fields = {name: value for name, value in raw.items() if name not in OTHER_NAMES}
    for other, name in OTHER_NAMES.items():
        value = raw.get(other)
        if value is None:
            continue
        if fields.get(name) is None:
            fields[name] = value
        elif not same(fields[name], value):
            raise disagree(name, fields[name], other, value)
    return fields


def disagree(first: str, value: object, second: str, other: object) -> ConfigError:
    """The refusal of two fields that say different things of one setting."""
    return ConfigError(
        f"{first} is {shown(value)} and {second} is {shown(other)}, which disagree; remove the"
        " wrong one from config.json"
    )


def dense_layers(fields: Fields, layers: int) -> int:
    """`first_k_dense_replace`, or what transformers 5 writes: the list `mlp_layer_types`."""
    name = "first_k_dense_replace"
    types = fields.texts("mlp_layer_types")
    if types is None:
        return fields.integer(name, least=0)
    dense = types.count("dense")
    if types != ("dense",) * dense + ("sparse",) * (layers - dense):
        raise ConfigError(
            f"mlp_layer_types {shown(list(types))} must be dense layers, then sparse ones,"
            f" num_hidden_layers ({layers}) together"
        )
    said = fields.integer(name, dense, least=0)
    if min(said, layers) != dense:  # transformers writes its default 3 for fewer layers, too
        raise disagree(name, said, "mlp_layer_types", list(types))
    return dense


def require_derived(fields: Fields, layers: int) -> None:
    """Fields that follow from others must say the same."""
    heads = fields.integer("num_attention_heads")
    if fields.integer("num_key_value_heads", heads) != heads:
        raise ConfigError("num_key_value_heads must equal num_attention_heads: MLA has one latent")
    nope, rope = (fields.integer(f"qk_{part}_head_dim") for part in ("nope", "rope"))
    widths = {nope, rope, nope + rope, fields.integer("v_head_dim")}
    if fields.integer("qk_head_dim", nope + rope) != nope + rope:
        both = "qk_nope_head_dim + qk_rope_head_dim"
        raise disagree("qk_head_dim", fields.raw["qk_head_dim"], both, nope + rope)
    if fields.integer("head_dim", rope) not in widths:  # writers differ in which one they mean
        every = "every width of an attention head"
        raise disagree("head_dim", fields.raw["head_dim"], every, sorted(widths))
    _require_alike(fields, "layer_types", LAYER_TYPE, layers)
    _require_alike(fields, "indexer_types", INDEXER_TYPE, layers)
    pattern = fields.raw.get("index_topk_pattern")
    if isinstance(pattern, list):
        _require_alike(fields, "index_topk_pattern", INDEXER_TYPE, layers)
    elif pattern is not None and pattern != "F" * layers:
        raise _unlike("index_topk_pattern", pattern, "F", layers)


def _require_alike(fields: Fields, name: str, value: str, layers: int) -> None:
    types = fields.texts(name)
    if types is not None and types != (value,) * layers:
        raise _unlike(name, list(types), value, layers)


def _unlike(name: str, got: object, value: str, layers: int) -> ConfigError:
    return ConfigError(
        f"{name} is {shown(got)}; lostwax implements {value!r} for each of num_hidden_layers"
        f" ({layers}) layers only: every layer selects for itself"
    )
