"""What a DeepSeek-V3.2 `config.json` says, checked once. Knows no tensor, opens no weight file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lostwax.frontend.config_fields import ConfigError, Fields
from lostwax.frontend.rope import Rope, read_rope
from lostwax.ir.contract.foreign_file import (
    DAMAGE,
    BadFile,
    MissingFile,
    decoded,
    read_bounded,
    reason,
)
from lostwax.ir.contract.one_line import one_line

ARCHITECTURE = "DeepseekV32ForCausalLM"
MODEL_TYPE = "deepseek_v32"
FP8_BLOCK = 128  # quantization_config: weight_block_size
LATENT_NORM_EPS = 1e-6  # hard-coded in the official code, for q_a, kv_a and the indexer's k_norm
MAX_CONFIG_BYTES = 1 << 20
MAX_MESSAGE = 500  # characters: a wrong value is repeated, whatever it is

Kind = Literal["dense", "moe"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Fields of the official configuration, by their Hugging Face names."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    first_k_dense_replace: int
    intermediate_size: int
    moe_intermediate_size: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    norm_topk_prob: bool
    routed_scaling_factor: float
    num_attention_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: Rope
    rope_interleave: bool
    indexer_rope_interleave: bool
    num_nextn_predict_layers: int
    quantised: bool
    scale_fmt: str | None
    dtype: Literal["bf16", "f32"]
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    digest: str
    """sha256 of the canonical JSON that the fields were read from."""

    def __post_init__(self) -> None:
        groups, experts = self.n_group, self.n_routed_experts
        if experts % groups or experts // groups < 2:
            raise ConfigError(
                f"n_routed_experts {experts} does not divide into n_group {groups} groups of two or"
                " more: a group's score is the sum of its two best experts"
            )
        if not 0 < self.topk_group <= groups:
            raise ConfigError(f"topk_group {self.topk_group} must lie in 1..n_group ({groups})")
        if self.num_experts_per_tok > self.topk_group * (experts // groups):
            raise ConfigError(
                f"num_experts_per_tok {self.num_experts_per_tok} exceeds the experts of"
                f" topk_group {self.topk_group} groups"
            )
        if self.qk_rope_head_dim % 2 or self.qk_rope_head_dim > self.index_head_dim:
            raise ConfigError(
                f"qk_rope_head_dim {self.qk_rope_head_dim} must be even and at most"
                f" index_head_dim ({self.index_head_dim}): the indexer rotates as many dimensions"
            )
        if self.first_k_dense_replace > self.num_hidden_layers:
            raise ConfigError(
                f"first_k_dense_replace {self.first_k_dense_replace} exceeds num_hidden_layers"
                f" ({self.num_hidden_layers})"
            )

    @property
    def qk_head_dim(self) -> int:
        """Width of one query head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """(Dn + R)^-0.5 times mscale squared (model paper, YaRN)."""
        return self.qk_head_dim**-0.5 * self.rope.softmax_mscale**2

    @property
    def index_scale(self) -> float:
        """Hi^-0.5 times Di^-0.5; the indexer has no mscale."""
        return self.index_n_heads**-0.5 * self.index_head_dim**-0.5

    def layer_kind(self, layer: int) -> Kind:
        """Which block kind a layer is; an MTP layer (number >= num_hidden_layers) is `moe`."""
        return "dense" if layer < self.first_k_dense_replace else "moe"

    @property
    def has_mtp(self) -> bool:
        """Whether there is the one multi-token-prediction layer that drafts can be made with."""
        return self.num_nextn_predict_layers == 1

    @property
    def mtp_layers(self) -> range:
        """Layer numbers of the multi-token-prediction modules."""
        return range(self.num_hidden_layers, self.num_hidden_layers + self.num_nextn_predict_layers)


def read_config(path: Path) -> ModelConfig:
    """Read a `config.json`."""
    try:
        raw = decoded(read_bounded(path, MAX_CONFIG_BYTES), dict[str, Any], path)
    except MissingFile as e:
        raise ConfigError(f"no config.json at {path}; give a checkpoint folder that has one") from e
    except BadFile as e:
        raise ConfigError(f"{e}; wants a JSON object; download it again") from e
    try:
        return parse_config(raw)
    except ConfigError as e:
        raise ConfigError(f"{path}: {one_line(str(e), MAX_MESSAGE)}") from e
    except DAMAGE as e:
        raise ConfigError(f"{path} is damaged ({reason(e)}); download it again") from e


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Check the fields of a configuration; both spellings of the rope settings are read."""
    fields = Fields(raw)
    _refuse_other_models(fields)
    layers = fields.integer("num_hidden_layers")
    rope_dim = fields.integer("qk_rope_head_dim")
    context = fields.integer("max_position_embeddings")
    quantised, scale_fmt = _quantisation(fields)
    canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    return ModelConfig(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        num_hidden_layers=layers,
        first_k_dense_replace=_dense_layers(fields, layers),
        intermediate_size=fields.integer("intermediate_size"),
        moe_intermediate_size=fields.integer("moe_intermediate_size"),
        n_routed_experts=fields.integer("n_routed_experts"),
        n_shared_experts=fields.integer("n_shared_experts", 1),
        num_experts_per_tok=fields.integer("num_experts_per_tok"),
        n_group=fields.integer("n_group"),
        topk_group=fields.integer("topk_group"),
        norm_topk_prob=fields.flag("norm_topk_prob", True),
        routed_scaling_factor=fields.number("routed_scaling_factor"),
        num_attention_heads=fields.integer("num_attention_heads"),
        q_lora_rank=fields.integer("q_lora_rank"),
        kv_lora_rank=fields.integer("kv_lora_rank"),
        qk_nope_head_dim=fields.integer("qk_nope_head_dim"),
        qk_rope_head_dim=rope_dim,
        v_head_dim=fields.integer("v_head_dim"),
        index_n_heads=fields.integer("index_n_heads"),
        index_head_dim=fields.integer("index_head_dim"),
        index_topk=fields.integer("index_topk"),
        max_position_embeddings=context,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope=read_rope(fields, rope_dim, context),
        rope_interleave=fields.flag("rope_interleave", True),
        indexer_rope_interleave=fields.flag("indexer_rope_interleave", False),
        num_nextn_predict_layers=fields.integer("num_nextn_predict_layers", 0, least=0),
        quantised=quantised,
        scale_fmt=scale_fmt,
        dtype=_dtype(fields),
        bos_token_id=fields.token("bos_token_id"),
        eos_token_ids=fields.tokens("eos_token_id"),
        digest=hashlib.sha256(canonical.encode()).hexdigest(),
    )


def _refuse_other_models(fields: Fields) -> None:
    architectures = fields.raw.get("architectures") or [ARCHITECTURE]
    model_type = fields.raw.get("model_type", MODEL_TYPE)
    if ARCHITECTURE not in architectures or model_type != MODEL_TYPE:
        raise ConfigError(
            f"this is a {model_type!r} model ({architectures}); lostwax serves {ARCHITECTURE}"
            f" (model_type {MODEL_TYPE!r}) only"
        )
    fields.only("hidden_act", "silu")
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    fields.only("tie_word_embeddings", False)
    fields.only("scoring_func", "sigmoid")
    fields.only("topk_method", "noaux_tc")
    fields.only("moe_layer_freq", 1)
    heads = fields.integer("num_attention_heads")
    if fields.integer("num_key_value_heads", heads) != heads:
        raise ConfigError("num_key_value_heads must equal num_attention_heads: MLA has one latent")


def _dense_layers(fields: Fields, layers: int) -> int:
    """`first_k_dense_replace`, or what transformers 5 writes: the list `mlp_layer_types`."""
    types = fields.raw.get("mlp_layer_types")
    if types is None:
        return fields.integer("first_k_dense_replace", least=0)
    dense = sum(t == "dense" for t in types)
    if list(types) != ["dense"] * dense + ["sparse"] * (layers - dense):
        raise ConfigError(f"mlp_layer_types {types} must be dense layers, then sparse ones")
    if fields.integer("first_k_dense_replace", dense, least=0) != dense:
        raise ConfigError("first_k_dense_replace and mlp_layer_types disagree; remove one of them")
    return dense


def _quantisation(fields: Fields) -> tuple[bool, str | None]:
    raw = fields.raw.get("quantization_config")
    if raw is None:
        return False, None
    quant = fields.child("quantization_config")
    quant.only("quant_method", "fp8")
    quant.only("fmt", "e4m3")
    quant.only("activation_scheme", "dynamic")
    quant.only("weight_block_size", [FP8_BLOCK, FP8_BLOCK])
    scale_fmt = quant.raw.get("scale_fmt")
    if scale_fmt not in (None, "ue8m0"):
        raise ConfigError(f"quantization_config.scale_fmt {scale_fmt!r}: wants 'ue8m0' or nothing")
    return True, scale_fmt


def _dtype(fields: Fields) -> Literal["bf16", "f32"]:
    name = fields.raw.get("dtype") or fields.raw.get("torch_dtype") or "bfloat16"
    if name == "bfloat16":
        return "bf16"
    if name == "float32":
        return "f32"
    raise ConfigError(f"dtype {name!r}: wants 'bfloat16' or 'float32'")
