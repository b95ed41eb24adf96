"""What a DeepSeek-V3.2 `config.json` says, checked once. Knows no tensor, opens no weight file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lostwax.frontend.config_fields import ConfigError, Fields, shown
from lostwax.frontend.json_file import read_json_object
from lostwax.frontend.known_fields import (
    QUANTISATION_IGNORED,
    QUANTISATION_READ,
    require_known,
    require_names,
)
from lostwax.frontend.rope import Rope, read_rope
from lostwax.frontend.spellings import dense_layers, one_spelling, require_derived
from lostwax.ir.contract.foreign_file import DAMAGE, reason
from lostwax.ir.contract.one_line import one_line
from lostwax.ir.contract.scale_layout import FP8_BLOCKS

ARCHITECTURE = "DeepseekV32ForCausalLM"
MODEL_TYPE = "deepseek_v32"
LATENT_NORM_EPS = 1e-6  # hard-coded in the official code, for q_a, kv_a and the indexer's k_norm
MAX_CONFIG_BYTES = 1 << 20
MAX_MESSAGE = 500  # characters: a wrong value is repeated, whatever it is
# Far above any model, and low enough that names and shapes of all tensors are made in seconds and
# that no product of widths leaves 64 bits.
MAX_LAYERS = 1 << 10
MAX_EXPERTS = 1 << 12
MAX_WIDTH = 1 << 20

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
        self._require_in_vocabulary("bos_token_id", (self.bos_token_id,))
        self._require_in_vocabulary("eos_token_id", self.eos_token_ids)

    def _require_in_vocabulary(self, name: str, tokens: tuple[int | None, ...]) -> None:
        for token in tokens:
            if token is not None and token >= self.vocab_size:
                raise ConfigError(
                    f"{name} {token} is no token of the vocabulary, whose vocab_size is"
                    f" {self.vocab_size}; take both from the official files"
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
    """Read a `config.json`; ConfigError names the file and the field at fault."""
    raw = read_json_object(path, MAX_CONFIG_BYTES)
    try:
        return parse_config(raw)
    except ConfigError as e:
        raise ConfigError(f"{path}: {one_line(str(e), MAX_MESSAGE)}") from e
    except DAMAGE as e:
        raise ConfigError(f"{path} is damaged ({reason(e)}); download it again") from e


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Check every field of a configuration, known or not."""
    fields = Fields(one_spelling(raw))
    _refuse_other_models(fields)
    require_known(fields)
    width = partial(fields.integer, most=MAX_WIDTH)
    layers = fields.integer("num_hidden_layers", most=MAX_LAYERS)
    require_derived(fields, layers)
    rope_dim = width("qk_rope_head_dim")
    context = fields.integer("max_position_embeddings")
    quantised, scale_fmt = _quantisation(fields)
    canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    return ModelConfig(
        vocab_size=width("vocab_size"),
        hidden_size=width("hidden_size"),
        num_hidden_layers=layers,
        first_k_dense_replace=dense_layers(fields, layers),
        intermediate_size=width("intermediate_size"),
        moe_intermediate_size=width("moe_intermediate_size"),
        n_routed_experts=fields.integer("n_routed_experts", most=MAX_EXPERTS),
        n_shared_experts=width("n_shared_experts", 1),
        num_experts_per_tok=width("num_experts_per_tok"),
        n_group=width("n_group"),
        topk_group=width("topk_group"),
        norm_topk_prob=fields.flag("norm_topk_prob", True),
        routed_scaling_factor=fields.number("routed_scaling_factor"),
        num_attention_heads=width("num_attention_heads"),
        q_lora_rank=width("q_lora_rank"),
        kv_lora_rank=width("kv_lora_rank"),
        qk_nope_head_dim=width("qk_nope_head_dim"),
        qk_rope_head_dim=rope_dim,
        v_head_dim=width("v_head_dim"),
        index_n_heads=width("index_n_heads"),
        index_head_dim=width("index_head_dim"),
        index_topk=fields.integer("index_topk"),
        max_position_embeddings=context,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope=read_rope(fields, rope_dim, context),
        rope_interleave=fields.flag("rope_interleave", True),
        indexer_rope_interleave=fields.flag("indexer_rope_interleave", False),
        num_nextn_predict_layers=fields.integer(
            "num_nextn_predict_layers", 0, least=0, most=MAX_LAYERS
        ),
        quantised=quantised,
        scale_fmt=scale_fmt,
        dtype=_dtype(fields),
        bos_token_id=fields.token("bos_token_id"),
        eos_token_ids=fields.tokens("eos_token_id"),
        digest=hashlib.sha256(canonical.encode()).hexdigest(),
    )


def _refuse_other_models(fields: Fields) -> None:
    architectures = fields.texts("architectures") or (ARCHITECTURE,)
    model_type = fields.raw.get("model_type") or MODEL_TYPE
    if ARCHITECTURE not in architectures or model_type != MODEL_TYPE:
        raise ConfigError(
            f"this is a {shown(model_type)} model ({shown(list(architectures))}); lostwax serves"
            f" {ARCHITECTURE} (model_type {MODEL_TYPE!r}) only"
        )


def _quantisation(fields: Fields) -> tuple[bool, str | None]:
    if fields.raw.get("quantization_config") is None:
        return False, None
    quant = fields.child("quantization_config")
    quant.only("quant_method", "fp8")
    quant.only("fmt", "e4m3")
    quant.only("activation_scheme", "dynamic")
    quant.only("weight_block_size", [FP8_BLOCKS.rows, FP8_BLOCKS.cols])
    quant.only("scale_fmt", "ue8m0", "float")
    quant.only("expert_dtype", "fp8")
    require_names(quant, QUANTISATION_READ | QUANTISATION_IGNORED)
    return True, "ue8m0" if quant.raw.get("scale_fmt") == "ue8m0" else None


def _dtype(fields: Fields) -> Literal["bf16", "f32"]:
    name = fields.raw.get("torch_dtype") or "bfloat16"
    if name == "bfloat16":
        return "bf16"
    if name == "float32":
        return "f32"
    raise ConfigError(f"dtype {shown(name)}: wants 'bfloat16' or 'float32'")
