"""What compiling and serving need to know of a model beside its graph. Reads no checkpoint."""

from __future__ import annotations

import msgspec

from lostwax.ir.contract.weights import Source

CHAT_V32 = "deepseek-v3.2"
"""The id of DeepSeek-V3.2's chat encoding, which `server/gateway/encoding_v32.py` renders."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one checkpoint. `digest` covers configuration, end and begin tokens, and every
    tensor's name, dtype, shape and file, not where the checkpoint lies. `chat_encoding` is the id
    of how chats are rendered, None where no encoder of ours is the model's.
    """

    name: str
    architecture: str
    digest: str
    vocab_size: int
    num_layers: int
    hidden_size: int
    index_topk: int
    max_context: int
    page_tokens: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    chat_encoding: str | None = None


WeightTable = dict[str, tuple[Source, ...]]
"""Logical weight name (`model.layers.3.mlp.experts.gate_proj.weight`) to its checkpoint tensors, in
stacking order (one a routed expert; one for all others)."""
