"""What compiling and serving need to know of a model beside its graph. Reads no checkpoint."""

from __future__ import annotations

import msgspec

from lostwax.ir.contract.bounds import Count, Word
from lostwax.ir.contract.weights import Source

CHAT_V32 = "deepseek-v3.2"
"""The id of DeepSeek-V3.2's chat encoding, which `server/formats/encoding_v32.py` renders."""
CHAT_SPECIALE = "deepseek-v3.2-speciale"
"""The same without tools, which that model was not trained on."""
CHAT_V31 = "deepseek-v3.1"
"""The id of the chat template of DeepSeek-V3.1, which `encoding_v31.py` renders."""
CHAT_V32_EXP = "deepseek-v3.2-exp"
"""The id of V3.2-Exp's, which differs from V3.1's in where the model's turn is opened."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one checkpoint. `digest` covers configuration, end and begin tokens, and every
    tensor's name, dtype, shape and file, not where the checkpoint lies. `chat_encoding` is the id
    of how chats are rendered, None where no encoder of ours is the model's.
    """

    name: Word
    architecture: Word
    digest: Word
    vocab_size: Count
    num_layers: Count
    hidden_size: Count
    index_topk: Count
    max_context: Count
    page_tokens: Count
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    chat_encoding: Word | None = None


WeightTable = dict[str, tuple[Source, ...]]
"""Logical weight name (`model.layers.3.mlp.experts.gate_proj.weight`) to its checkpoint tensors, in
stacking order (one a routed expert; one for all others)."""
