"""Names and shapes of the official checkpoint's tensors. Knows no file and no stored data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from lostwax.frontend.config import ModelConfig

SCALE_SUFFIX = "_scale_inv"  # multiplies, in spite of its name


class Axis(NamedTuple):
    """One axis of a tensor: its length, and the fields of `config.json` that give it."""

    size: int
    fields: str


@dataclass(frozen=True, slots=True)
class Weight:
    """A logical weight: one tensor, or one a routed expert (stacked by the runtime).

    `axes` are each tensor's; `quantisable` says that FP8 checkpoints store it in FP8 blocks,
    `is_stacked` that its tensors are entries of an axis before those (even if there is one).
    """

    name: str
    tensors: tuple[str, ...]
    axes: tuple[Axis, ...]
    quantisable: bool
    is_stacked: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Each tensor's shape."""
        return tuple(axis.size for axis in self.axes)


def model_weights(config: ModelConfig) -> Iterator[Weight]:
    """Every weight that the main model reads."""
    yield from embed_weights(config)
    for layer in range(config.num_hidden_layers):
        yield from layer_weights(config, layer)
    yield from head_weights(config)


def _axis(config: ModelConfig, *factors: str | int) -> Axis:
    """A product of numbers, fields and sums of fields (`qk_nope_head_dim + qk_rope_head_dim`)."""
    sizes = [
        f if isinstance(f, int) else sum(int(getattr(config, name)) for name in f.split(" + "))
        for f in factors
    ]
    texts = [f"({f})" if len(factors) > 1 and "+" in str(f) else str(f) for f in factors]
    return Axis(prod(sizes), " * ".join(texts))


def embed_weights(config: ModelConfig) -> Iterator[Weight]:
    """The embedding table."""
    yield _plain("model.embed_tokens.weight", *_table(config))


def head_weights(config: ModelConfig) -> Iterator[Weight]:
    """Final norm and output projection."""
    yield _plain("model.norm.weight", _axis(config, "hidden_size"))
    yield _plain("lm_head.weight", *_table(config))


def layer_weights(config: ModelConfig, layer: int) -> Iterator[Weight]:
    """One decoder layer (an MTP layer is a MoE layer with `mtp_weights` beside it)."""
    prefix, hidden = f"model.layers.{layer}.", _axis(config, "hidden_size")
    yield _plain(f"{prefix}input_layernorm.weight", hidden)
    yield _plain(f"{prefix}post_attention_layernorm.weight", hidden)
    yield from _attention(config, f"{prefix}self_attn.")
    if config.layer_kind(layer) == "dense":
        yield from _mlp(f"{prefix}mlp.", hidden, _axis(config, "intermediate_size"))
    else:
        yield from _moe(config, f"{prefix}mlp.")


def mtp_weights(config: ModelConfig, layer: int) -> Iterator[Weight]:
    """What a multi-token-prediction layer has beside a decoder layer's weights."""
    prefix, hidden = f"model.layers.{layer}.", _axis(config, "hidden_size")
    yield _plain(f"{prefix}enorm.weight", hidden)
    yield _plain(f"{prefix}hnorm.weight", hidden)
    yield _plain(f"{prefix}eh_proj.weight", hidden, _axis(config, 2, "hidden_size"))
    yield _plain(f"{prefix}shared_head.norm.weight", hidden)


def mtp_copies(config: ModelConfig, layer: int) -> Iterator[Weight]:
    """The main model's embedding and output projection again; a checkpoint may leave them out."""
    prefix = f"model.layers.{layer}."
    yield _plain(f"{prefix}embed_tokens.weight", *_table(config))
    yield _plain(f"{prefix}shared_head.head.weight", *_table(config))


def _table(config: ModelConfig) -> tuple[Axis, Axis]:
    return _axis(config, "vocab_size"), _axis(config, "hidden_size")


def _plain(name: str, *axes: Axis) -> Weight:
    return Weight(name, (name,), axes, quantisable=False)


def _linear(name: str, out_features: Axis, in_features: Axis) -> Weight:
    name = f"{name}.weight"
    return Weight(name, (name,), (out_features, in_features), quantisable=True)


def _attention(config: ModelConfig, prefix: str) -> Iterator[Weight]:
    hidden, q_rank = _axis(config, "hidden_size"), _axis(config, "q_lora_rank")
    heads, kv_rank = "num_attention_heads", _axis(config, "kv_lora_rank")
    queries = _axis(config, heads, "qk_nope_head_dim + qk_rope_head_dim")
    latent = _axis(config, "kv_lora_rank + qk_rope_head_dim")
    yield _linear(f"{prefix}q_a_proj", q_rank, hidden)
    yield _plain(f"{prefix}q_a_layernorm.weight", q_rank)
    yield _linear(f"{prefix}q_b_proj", queries, q_rank)
    yield _linear(f"{prefix}kv_a_proj_with_mqa", latent, hidden)
    yield _plain(f"{prefix}kv_a_layernorm.weight", kv_rank)
    values = _axis(config, heads, "qk_nope_head_dim + v_head_dim")
    yield _linear(f"{prefix}kv_b_proj", values, kv_rank)
    yield _linear(f"{prefix}o_proj", hidden, _axis(config, heads, "v_head_dim"))
    index, key = f"{prefix}indexer.", _axis(config, "index_head_dim")
    yield _linear(f"{index}wq_b", _axis(config, "index_n_heads", "index_head_dim"), q_rank)
    yield _linear(f"{index}wk", key, hidden)
    yield _plain(f"{index}k_norm.weight", key)
    yield _plain(f"{index}k_norm.bias", key)
    yield _plain(f"{index}weights_proj.weight", _axis(config, "index_n_heads"), hidden)


def _mlp(prefix: str, hidden: Axis, inter: Axis) -> Iterator[Weight]:
    yield _linear(f"{prefix}gate_proj", inter, hidden)
    yield _linear(f"{prefix}up_proj", inter, hidden)
    yield _linear(f"{prefix}down_proj", hidden, inter)


def _moe(config: ModelConfig, prefix: str) -> Iterator[Weight]:
    hidden, inter = _axis(config, "hidden_size"), _axis(config, "moe_intermediate_size")
    experts = _axis(config, "n_routed_experts")
    yield _plain(f"{prefix}gate.weight", experts, hidden)
    yield _plain(f"{prefix}gate.e_score_correction_bias", experts)
    for projection, axes in (
        ("gate_proj", (inter, hidden)),
        ("up_proj", (inter, hidden)),
        ("down_proj", (hidden, inter)),
    ):
        tensors = tuple(f"{prefix}experts.{e}.{projection}.weight" for e in range(experts.size))
        name = f"{prefix}experts.{projection}.weight"
        yield Weight(name, tensors, axes, quantisable=True, is_stacked=True)
    shared = _axis(config, "moe_intermediate_size", "n_shared_experts")
    yield from _mlp(f"{prefix}shared_experts.", hidden, shared)
