"""Names and shapes of the official checkpoint's tensors. Knows no file and no stored data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lostwax.frontend.config import FP8_BLOCK, ModelConfig

SCALE_SUFFIX = "_scale_inv"  # multiplies, in spite of its name


@dataclass(frozen=True, slots=True)
class Weight:
    """A logical weight: one tensor, or one a routed expert (stacked by the runtime).

    `shape` is each tensor's; `quantisable` says that FP8 checkpoints store it in FP8 blocks.
    """

    name: str
    tensors: tuple[str, ...]
    shape: tuple[int, ...]
    quantisable: bool


def scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Blocks of 128 x 128, the last ones possibly not full: 576 rows have 5."""
    return tuple(-(-n // FP8_BLOCK) for n in shape)


def model_weights(config: ModelConfig) -> Iterator[Weight]:
    """Every weight that the main model reads."""
    yield from embed_weights(config)
    for layer in range(config.num_hidden_layers):
        yield from layer_weights(config, layer)
    yield from head_weights(config)


def embed_weights(config: ModelConfig) -> Iterator[Weight]:
    """The embedding table."""
    yield _plain("model.embed_tokens.weight", config.vocab_size, config.hidden_size)


def head_weights(config: ModelConfig) -> Iterator[Weight]:
    """Final norm and output projection."""
    yield _plain("model.norm.weight", config.hidden_size)
    yield _plain("lm_head.weight", config.vocab_size, config.hidden_size)


def layer_weights(config: ModelConfig, layer: int) -> Iterator[Weight]:
    """One decoder layer (an MTP layer is a MoE layer with `mtp_weights` beside it)."""
    prefix, hidden = f"model.layers.{layer}.", config.hidden_size
    yield _plain(f"{prefix}input_layernorm.weight", hidden)
    yield _plain(f"{prefix}post_attention_layernorm.weight", hidden)
    yield from _attention(config, f"{prefix}self_attn.")
    if config.layer_kind(layer) == "dense":
        yield from _mlp(f"{prefix}mlp.", hidden, config.intermediate_size)
    else:
        yield from _moe(config, f"{prefix}mlp.")


def mtp_weights(config: ModelConfig, layer: int) -> Iterator[Weight]:
    """What a multi-token-prediction layer has beside a decoder layer's weights."""
    prefix, hidden = f"model.layers.{layer}.", config.hidden_size
    yield _plain(f"{prefix}enorm.weight", hidden)
    yield _plain(f"{prefix}hnorm.weight", hidden)
    yield _plain(f"{prefix}eh_proj.weight", hidden, 2 * hidden)
    yield _plain(f"{prefix}shared_head.norm.weight", hidden)


def mtp_copies(config: ModelConfig, layer: int) -> Iterator[Weight]:
    """The main model's embedding and output projection again; a checkpoint may leave them out."""
    prefix, shape = f"model.layers.{layer}.", (config.vocab_size, config.hidden_size)
    yield _plain(f"{prefix}embed_tokens.weight", *shape)
    yield _plain(f"{prefix}shared_head.head.weight", *shape)


def _plain(name: str, *shape: int) -> Weight:
    return Weight(name, (name,), shape, quantisable=False)


def _linear(name: str, out_features: int, in_features: int) -> Weight:
    name = f"{name}.weight"
    return Weight(name, (name,), (out_features, in_features), quantisable=True)


def _attention(config: ModelConfig, prefix: str) -> Iterator[Weight]:
    hidden, heads, rank = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    nope, value = config.qk_nope_head_dim, config.v_head_dim
    yield _linear(f"{prefix}q_a_proj", config.q_lora_rank, hidden)
    yield _plain(f"{prefix}q_a_layernorm.weight", config.q_lora_rank)
    yield _linear(f"{prefix}q_b_proj", heads * config.qk_head_dim, config.q_lora_rank)
    yield _linear(f"{prefix}kv_a_proj_with_mqa", rank + config.qk_rope_head_dim, hidden)
    yield _plain(f"{prefix}kv_a_layernorm.weight", rank)
    yield _linear(f"{prefix}kv_b_proj", heads * (nope + value), rank)
    yield _linear(f"{prefix}o_proj", hidden, heads * value)
    index = f"{prefix}indexer."
    index_rows = config.index_n_heads * config.index_head_dim
    yield _linear(f"{index}wq_b", index_rows, config.q_lora_rank)
    yield _linear(f"{index}wk", config.index_head_dim, hidden)
    yield _plain(f"{index}k_norm.weight", config.index_head_dim)
    yield _plain(f"{index}k_norm.bias", config.index_head_dim)
    yield _plain(f"{index}weights_proj.weight", config.index_n_heads, hidden)


def _mlp(prefix: str, hidden: int, inter: int) -> Iterator[Weight]:
    yield _linear(f"{prefix}gate_proj", inter, hidden)
    yield _linear(f"{prefix}up_proj", inter, hidden)
    yield _linear(f"{prefix}down_proj", hidden, inter)


def _moe(config: ModelConfig, prefix: str) -> Iterator[Weight]:
    hidden, inter = config.hidden_size, config.moe_intermediate_size
    yield _plain(f"{prefix}gate.weight", config.n_routed_experts, hidden)
    yield _plain(f"{prefix}gate.e_score_correction_bias", config.n_routed_experts)
    for projection, shape in (
        ("gate_proj", (inter, hidden)),
        ("up_proj", (inter, hidden)),
        ("down_proj", (hidden, inter)),
    ):
        tensors = tuple(
            f"{prefix}experts.{e}.{projection}.weight" for e in range(config.n_routed_experts)
        )
        yield Weight(f"{prefix}experts.{projection}.weight", tensors, shape, quantisable=True)
    yield from _mlp(f"{prefix}shared_experts.", hidden, inter * config.n_shared_experts)
