"""Tensors that the configuration does not ask for, and tensors that it asks for in vain.

Says which of them are known to be harmless, and which field is at fault for the rest. Knows names
only: no file, no shape.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lostwax.frontend.config import ModelConfig

_LAYER = re.compile(r"model\.layers\.(\d{1,6})\.(.+)")
_EXPERT = re.compile(r"mlp\.experts\.(\d{1,6})\.")
_BUFFER = re.compile(r"(?:.*\.)?rotary_emb\.(?:inv_freq|cos_cached|sin_cached)")
"""Buffers that older transformers stored; the rope settings give their values."""
_MTP_PARTS = ("enorm.", "hnorm.", "eh_proj.", "shared_head.", "embed_tokens.")
_SPARSE_PARTS = ("mlp.experts.", "mlp.gate.", "mlp.shared_experts.")
_DENSE_PARTS = ("mlp.gate_proj.", "mlp.up_proj.", "mlp.down_proj.")
_NO_FIELD = (
    "no field of config.json asks for it, so it belongs to another architecture; config.json and"
    " weights must come from one checkpoint"
)
_OTHER_FORMATS = (
    ".weight_scale", ".weight_scale_2", ".input_scale", ".weight_packed", ".weight_shape",
    ".qweight", ".qzeros", ".scales", ".g_idx", ".scale",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Harmless:
    """Tensors that nothing reads, and the one line that says so (None where there are none)."""

    names: frozenset[str]
    notice: str | None


def harmless(config: ModelConfig, left: Collection[str]) -> Harmless:
    """Of the tensors that are left over, those whose absence changes no answer.

    Layers of multi-token prediction beyond `num_nextn_predict_layers` only draft; setting that
    field to 0 is the usual way to switch them off.
    """
    buffers = {name for name in left if _BUFFER.fullmatch(name)}
    first = config.num_hidden_layers + config.num_nextn_predict_layers
    drafting = {
        layer
        for layer, part in _layer_parts(left)
        if layer >= first and part.startswith("eh_proj.")
    }
    mtp = {name for name in left if (at := _LAYER.fullmatch(name)) and int(at[1]) in drafting}
    mtp -= buffers
    said: list[str] = []
    if mtp:
        layers = ", ".join(map(str, sorted(drafting)))
        said.append(
            f"{len(mtp)} of MTP layer {layers} (num_nextn_predict_layers is"
            f" {config.num_nextn_predict_layers})"
        )
    if buffers:
        said.append(f"{len(buffers)} rotary_emb buffers (the rope settings give their values)")
    notice = f"tensors that are not read: {', '.join(said)}" if said else None
    return Harmless(frozenset(mtp | buffers), notice)


def _layer_parts(names: Iterable[str]) -> Iterable[tuple[int, str]]:
    for name in names:
        if at := _LAYER.fullmatch(name):
            yield int(at[1]), at[2]


def extra_tensor(config: ModelConfig, name: str) -> str:
    """Which field of the configuration does not ask for a tensor, and what to do."""
    at = _LAYER.fullmatch(name)
    if at is None:
        return _NO_FIELD
    layer, part = int(at[1]), at[2]
    if layer >= config.num_hidden_layers + config.num_nextn_predict_layers:
        return _correct(config, "num_hidden_layers", f"it ends before layer {layer}")
    if part.startswith(_MTP_PARTS) and layer < config.num_hidden_layers:
        why = f"it counts layer {layer}, a layer of multi-token prediction"
        return _correct(config, "num_hidden_layers", why)
    if part.endswith(_OTHER_FORMATS):
        return "it belongs to a quantisation other than FP8 blocks; take weights in FP8 or bf16"
    if part.endswith(".bias"):
        return "lostwax implements no such bias (attention_bias, mlp_bias)"
    return _extra_in_mlp(config, layer, part) or _NO_FIELD


def _extra_in_mlp(config: ModelConfig, layer: int, part: str) -> str | None:
    is_dense = config.layer_kind(layer) == "dense"
    if is_dense and part.startswith(_SPARSE_PARTS):
        return _correct(config, "first_k_dense_replace", f"it makes layer {layer} dense")
    if not is_dense and part.startswith(_DENSE_PARTS):
        return _correct(config, "first_k_dense_replace", f"it gives layer {layer} experts")
    expert = _EXPERT.match(part)
    if expert and int(expert[1]) >= config.n_routed_experts:
        return _correct(config, "n_routed_experts", f"it ends before expert {expert[1]}")
    return None


def missing_tensor(config: ModelConfig, name: str, names: Collection[str]) -> str:
    """What to do about a tensor that is not among `names`: which field asks for too much."""
    download = "download the checkpoint's other shards"
    at = _LAYER.fullmatch(name)
    if at is None:
        tied = name == "lm_head.weight" and "model.embed_tokens.weight" in names
        return f"{download}; lostwax implements no tie_word_embeddings" if tied else download
    layer, part = int(at[1]), at[2]
    parts = {p for n, p in _layer_parts(names) if n == layer}
    if not parts:
        why = f"the files hold nothing of layer {layer}"
        return f"{download}, or {_correct(config, 'num_hidden_layers', why)}"
    return _missing_in_layer(config, layer, part, parts) or download


def _missing_in_layer(config: ModelConfig, layer: int, part: str, parts: set[str]) -> str | None:
    if part.startswith(_DENSE_PARTS) and any(p.startswith(_SPARSE_PARTS) for p in parts):
        return _correct(config, "first_k_dense_replace", f"layer {layer} has experts")
    if part.startswith(_SPARSE_PARTS) and any(p.startswith(_DENSE_PARTS) for p in parts):
        return _correct(config, "first_k_dense_replace", f"layer {layer} is dense")
    if part.startswith("self_attn.q_a_proj.") and "self_attn.q_proj.weight" in parts:
        return "lostwax implements queries of low rank (q_lora_rank) only"
    return None


def _correct(config: ModelConfig, field: str, why: str) -> str:
    return f"correct {field} in config.json, which is {getattr(config, field)}: {why}"
