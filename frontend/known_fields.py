"""Every field of a configuration that is known, and the refusal of the rest. Reads no value.

A field changes the model, describes it, or does neither. The first kind is read (`READ`), or has
values that are implemented (`IMPLEMENTED`), or belongs to a relative and must be absent or neutral
(`UNIMPLEMENTED`). The last kind is listed with the reason why it may be ignored (`IGNORED`). What
is in no list is refused unless it is null, false, zero or empty: a field that nobody knows may be
the one that makes the answers wrong.

Sources: transformers' configuration classes of deepseek_v3, deepseek_v32, deepseek_v4 and
glm_moe_dsa; the published configurations of these models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lostwax.frontend.config_fields import ConfigError, Fields, one_of, shown

READ = frozenset({
    "architectures", "model_type", "vocab_size", "hidden_size", "num_hidden_layers",
    "first_k_dense_replace", "mlp_layer_types", "layer_types", "intermediate_size",
    "moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_experts_per_tok",
    "n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor",
    "num_attention_heads", "num_key_value_heads", "q_lora_rank", "kv_lora_rank",
    "qk_nope_head_dim", "qk_rope_head_dim", "qk_head_dim", "head_dim", "v_head_dim",
    "index_n_heads", "index_head_dim", "index_topk", "indexer_types", "index_topk_pattern",
    "max_position_embeddings", "original_max_position_embeddings", "rms_norm_eps",
    "rope_theta", "rope_scaling", "rope_parameters", "rope_interleave",
    "indexer_rope_interleave", "num_nextn_predict_layers", "quantization_config",
    "torch_dtype", "bos_token_id", "eos_token_id",
})  # fmt: skip
"""Fields of the official configuration, and the other ways to say the same, which are compared."""

IMPLEMENTED: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "tie_word_embeddings": (False,),
    "scoring_func": ("sigmoid",),
    "topk_method": ("noaux_tc",),
    "moe_layer_freq": (1,),
    "partial_rotary_factor": (1,),
    "expert_dtype": ("fp8", "bf16", "bfloat16"),
}
"""Fields of the architecture of which only these values are implemented."""


@dataclass(frozen=True, slots=True)
class Feature:
    """What a field switches on, and the values beside null, false, 0 and empty that do not."""

    what: str
    neutral: tuple[object, ...] = ()


_SHARED = Feature("layers that take over another layer's selection", (1,))
_SHARED_FLAG = Feature(_SHARED.what)
_COMPRESSED = Feature("attention over compressed keys")
_WINDOW = Feature("attention to a sliding window")
_SINK = Feature("attention sinks")
_STREAMS = Feature("hyper-connections between layers")
_OUTPUT = Feature("an output projection in groups")
_CLAMP = Feature("clamped gates in the feed-forward layers")
_CAP = Feature("capped logits")
_SCALE = Feature("scaled activations", (1,))
_CHUNK = Feature("attention inside chunks")
_NORM = Feature("norms of queries and keys")
_MODAL = Feature("inputs that are no text")
_ENCODER = Feature("an encoder beside the decoder")

UNIMPLEMENTED: dict[str, Feature] = {
    "index_topk_freq": _SHARED,
    "index_skip_topk_offset": _SHARED_FLAG,
    "index_share_for_mtp_iteration": _SHARED_FLAG,
    "use_index_cache": _SHARED_FLAG,
    "index_source_layer_ids": _SHARED_FLAG,
    "kv_source_layer_ids": Feature("layers that read another layer's cache"),
    "num_kv_shared_layers": Feature("layers that read another layer's cache"),
    "index_kpool": Feature("pooled index keys", (1,)),
    "compress_ratios": _COMPRESSED,
    "compress_rates": _COMPRESSED,
    "compress_rate_csa": _COMPRESSED,
    "compress_rate_hca": _COMPRESSED,
    "compress_rope_theta": _COMPRESSED,
    "num_hash_layers": Feature("experts chosen by a hash of the token"),
    "hc_mult": _STREAMS,
    "hc_sinkhorn_iters": _STREAMS,
    "hc_eps": _STREAMS,
    "o_groups": _OUTPUT,
    "o_lora_rank": _OUTPUT,
    "swiglu_limit": _CLAMP,
    "swiglu_alpha": _CLAMP,
    "sliding_window": _WINDOW,
    "sliding_window_size": _WINDOW,
    "use_sliding_window": _WINDOW,
    "window_size": _WINDOW,
    "layer_window_sizes": _WINDOW,
    "attention_chunk_size": _CHUNK,
    "attention_sink": _SINK,
    "attention_sinks": _SINK,
    "attn_sink": _SINK,
    "num_attention_sinks": _SINK,
    "use_attention_sink": _SINK,
    "add_attention_sink_bias": _SINK,
    "attn_logit_softcapping": _CAP,
    "final_logit_softcapping": _CAP,
    "router_logit_softcapping": _CAP,
    "clip_qkv": _CAP,
    "embedding_multiplier": _SCALE,
    "residual_multiplier": _SCALE,
    "attention_multiplier": _SCALE,
    "logits_scaling": _SCALE,
    "logit_scale": _SCALE,
    "scale_emb": _SCALE,
    "scale_depth": _SCALE,
    "qk_norm": _NORM,
    "use_qk_norm": _NORM,
    "qk_layernorm": _NORM,
    "no_rope_layers": Feature("layers without rotary embedding"),
    "per_layer_config": Feature("layers of different sizes"),
    "text_config": _MODAL,
    "vision_config": _MODAL,
    "audio_config": _MODAL,
    "is_encoder_decoder": _ENCODER,
    "add_cross_attention": _ENCODER,
}
"""Fields of relatives of the architecture, by what they switch on."""

IGNORED: dict[str, frozenset[str]] = {
    "it names software that wrote the files or may load them; no code is ever run": frozenset({
        "transformers_version", "name_or_path", "auto_map", "trust_remote_code", "torchscript",
        "attn_implementation", "experts_implementation",
    }),
    "it matters in training only": frozenset({
        "initializer_range", "attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop",
        "classifier_dropout", "aux_loss_alpha", "seq_aux", "router_aux_loss_coef",
        "router_jitter_noise", "output_router_logits", "pretraining_tp", "ep_size",
        "gradient_checkpointing",
    }),
    "it says what a Python call returns or keeps": frozenset({
        "use_cache", "return_dict", "output_hidden_states", "output_attentions",
        "output_scores", "return_dict_in_generate", "use_return_dict",
        "chunk_size_feed_forward", "is_decoder",
    }),
    "it belongs to the tokenizer or to classifiers": frozenset({
        "pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id",
        "decoder_start_token_id", "tokenizer_class", "id2label", "label2id", "num_labels",
        "problem_type", "finetuning_task", "task_specific_params",
    }),
    "it is a default of sampling, which requests set": frozenset({
        "max_length", "max_new_tokens", "min_length", "min_new_tokens", "do_sample",
        "early_stopping", "num_beams", "num_beam_groups", "temperature", "top_k", "top_p",
        "typical_p", "repetition_penalty", "length_penalty", "diversity_penalty",
        "encoder_repetition_penalty", "num_return_sequences", "num_assistant_tokens",
        "num_assistant_tokens_schedule", "assistant_confidence_threshold",
        "assistant_lookbehind", "target_lookbehind",
    }),
}  # fmt: skip
"""Names by the reason why they change nothing. Names that begin with `_` are notes of tools."""

QUANTISATION_READ = frozenset(
    ("quant_method", "fmt", "activation_scheme", "weight_block_size", "scale_fmt", "expert_dtype")
)
QUANTISATION_IGNORED = frozenset(
    ("modules_to_not_convert", "modules_to_convert", "ignored_layers", "dequantize")
)
"""Which tensors are FP8 is read from the tensors themselves."""

_IGNORED_NAMES = frozenset[str]().union(*IGNORED.values())


def require_known(fields: Fields) -> None:
    """Raise ConfigError at the first field that might change the model and is not implemented."""
    for name, values in IMPLEMENTED.items():
        fields.only(name, *values)
    for name, feature in UNIMPLEMENTED.items():
        value = fields.raw.get(name)
        if not _is_neutral(value) and not one_of(value, feature.neutral):
            raise ConfigError(
                f"{fields.path}{name} is {shown(value)}: lostwax does not implement"
                f" {feature.what}; serve this checkpoint with software that does"
            )
    require_names(fields, READ | IMPLEMENTED.keys() | UNIMPLEMENTED.keys() | _IGNORED_NAMES)


def require_names(fields: Fields, known: frozenset[str]) -> None:
    """Raise ConfigError at the first field that is not in `known` and might mean something."""
    for name in sorted(fields.raw):
        if name not in known and not name.startswith("_") and not _is_neutral(fields.raw[name]):
            raise ConfigError(
                f"{fields.path}{shown(name)[1:-1]} is {shown(fields.raw[name])}, a field that"
                " lostwax does not know and that may change the model; remove it from config.json"
                " if the weights do not depend on it"
            )


def _is_neutral(value: Any) -> bool:
    return not value
