"""What compiling and serving need to know of a model beside its graph. Reads no checkpoint."""

from __future__ import annotations

import msgspec

from lostwax.ir.contract.weights import Source


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one checkpoint. `digest` covers configuration and every tensor's name, dtype, shape
    and the checkpoint index, not where the checkpoint lies.
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


WeightTable = dict[str, tuple[Source, ...]]
"""Logical weight name (`model.layers.3.mlp.experts.gate_proj.weight`) to its checkpoint tensors, in
stacking order (one a routed expert; one for all others)."""
