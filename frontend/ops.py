"""The ops that the model calls: schemas and fake kernels. What they mean is `ir/reference`'s.

`lostwax::family_verb` is the IR op `family.verb`, with arguments named as its fields; an argument
`dtype` is the result's element type. Caches are [N, page_tokens, row] tensors here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LIBRARY = torch.library.Library("lostwax", "FRAGMENT")
"""Keeps the ops alive: they vanish with this object."""

OPS: Any = torch.ops.lostwax  # torch types its op namespaces as unknown
_LIBRARY_API: Any = LIBRARY  # torch types these two functions in part only
_FAKES: Any = torch.library


def _define(schema: str, fake: Callable[..., Any]) -> None:
    name = schema.split("(", 1)[0]
    _LIBRARY_API.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _FAKES.register_fake(f"lostwax::{name}", fake, lib=LIBRARY)


def _like(x: Tensor, *rest: Any) -> Tensor:
    """x's shape, in the dtype that comes last."""
    return x.new_empty(x.shape, dtype=rest[-1])


def _same(x: Tensor, *rest: Any) -> Tensor:
    """x's shape and dtype."""
    return x.new_empty(x.shape)


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    return x.new_empty(rows.shape[0], *x.shape[1:])


def _concat(parts: list[Tensor]) -> Tensor:
    width = sum(p.shape[-1] for p in parts)
    return parts[0].new_empty(*parts[0].shape[:-1], width)


def _embed(tokens: Tensor, table: Tensor) -> Tensor:
    return table.new_empty(tokens.shape[0], table.shape[1])


def _linear(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"quant_linear: x {x.shape} does not fit weight {weight.shape}")
    return x.new_empty(x.shape[0], weight.shape[0], dtype=dtype)


def _attend(
    q_nope: Tensor, q_pe: Tensor, kv_b: Tensor, cache_in: Tensor, selection: Tensor,
    positions: Tensor, q_starts: Tensor, page_table: Tensor, scale: float,
) -> Tensor:  # fmt: skip
    rows, heads, nope = q_nope.shape
    return q_nope.new_empty(rows, kv_b.shape[0] - heads * nope)


def _index_logits(
    q: Tensor, weights: Tensor, cache_in: Tensor,
    positions: Tensor, q_starts: Tensor, page_table: Tensor, scale: float,
) -> Tensor:  # fmt: skip
    columns = page_table.shape[1] * cache_in.shape[1]
    return q.new_empty(q.shape[0], columns, dtype=torch.float32)


def _topk(logits: Tensor, k: int) -> Tensor:
    return logits.new_empty(logits.shape[0], k, dtype=torch.int32)


def _route(
    logits: Tensor, bias: Tensor, positions: Tensor,
    top_k: int, n_group: int, topk_group: int, normalise: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    shape = (logits.shape[0], top_k)
    return logits.new_empty(shape, dtype=torch.int32), logits.new_empty(shape)


def _append(cache_in: Tensor, rows: list[Tensor], slots: Tensor) -> None:
    width = sum(r.shape[1] for r in rows)
    if width != cache_in.shape[2]:
        raise ValueError(f"kv_append_: rows of {width} do not fit cache rows of {cache_in.shape}")


def _pick(
    logits: Tensor, temperature: Tensor, seeds: Tensor, counters: Tensor
) -> tuple[Tensor, Tensor]:
    rows = logits.shape[0]
    return logits.new_empty(rows, dtype=torch.int32), logits.new_empty(rows, dtype=torch.float32)


def _penalise(
    logits: Tensor, counts: Tensor, count_rows: Tensor, recent: Tensor,
    repetition: Tensor, frequency: Tensor, presence: Tensor,
) -> Tensor:  # fmt: skip
    return logits.new_empty(logits.shape, dtype=torch.float32)


def _bias(logits: Tensor, biases: Tensor, bias_rows: Tensor) -> Tensor:
    return logits.new_empty(logits.shape, dtype=torch.float32)


def _mask(logits: Tensor, masks: Tensor, mask_rows: Tensor) -> Tensor:
    return logits.new_empty(logits.shape, dtype=torch.float32)


def _nucleus(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    return logits.new_empty(logits.shape, dtype=torch.float32)


def _logprob(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.new_empty(logits.shape[0], dtype=torch.float32)


def _score(logits: Tensor, targets: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    rows = logits.shape[0]
    return (
        logits.new_empty(rows, dtype=torch.float32),
        logits.new_empty(rows, n, dtype=torch.int32),
        logits.new_empty(rows, n, dtype=torch.float32),
    )


_define("core_add(Tensor a, Tensor b, ScalarType dtype) -> Tensor", _like)
_define("core_cast(Tensor x, ScalarType dtype) -> Tensor", _like)
_define("core_zeros_like(Tensor x) -> Tensor", _same)
_define("core_rms_norm(Tensor x, Tensor weight, float eps, ScalarType dtype) -> Tensor", _like)
_define(
    "core_layer_norm(Tensor x, Tensor weight, Tensor bias, float eps, ScalarType dtype) -> Tensor",
    _like,
)
_define("core_silu_mul(Tensor gate, Tensor up, ScalarType dtype) -> Tensor", _like)
_define(
    "core_rope(Tensor x, Tensor positions, int offset, int dim, bool interleaved, float theta,"
    " float factor, int original_len, float beta_fast, float beta_slow, float magnitude) -> Tensor",
    _same,
)
_define("core_concat(Tensor[] parts) -> Tensor", _concat)
_define("core_embed(Tensor tokens, Tensor table) -> Tensor", _embed)
_define("core_gather_rows(Tensor x, Tensor rows) -> Tensor", _rows)
_define("quant_linear(Tensor x, Tensor weight, ScalarType dtype) -> Tensor", _linear)
_define(
    "mla_attend(Tensor q_nope, Tensor q_pe, Tensor kv_b, Tensor cache_in, Tensor selection,"
    " Tensor positions, Tensor q_starts, Tensor page_table, float scale) -> Tensor",
    _attend,
)
_define(
    "dsa_index_logits(Tensor q, Tensor weights, Tensor cache_in, Tensor positions,"
    " Tensor q_starts, Tensor page_table, float scale) -> Tensor",
    _index_logits,
)
_define("dsa_topk(Tensor logits, int k) -> Tensor", _topk)
_define(
    "moe_route(Tensor logits, Tensor bias, Tensor positions, int top_k, int n_group,"
    " int topk_group, bool normalise, float scale) -> (Tensor, Tensor)",
    _route,
)
_define(
    "moe_experts(Tensor x, Tensor ids, Tensor weights, Tensor gate, Tensor up, Tensor down,"
    " ScalarType dtype) -> Tensor",
    _like,
)
_define("kv_append_(Tensor(a!) cache_in, Tensor[] rows, Tensor slots) -> ()", _append)
_define(
    "sample_pick(Tensor logits, Tensor temperature, Tensor seeds, Tensor counters)"
    " -> (Tensor, Tensor)",
    _pick,
)
_define(
    "sample_penalise(Tensor logits, Tensor counts, Tensor count_rows, Tensor recent,"
    " Tensor repetition, Tensor frequency, Tensor presence) -> Tensor",
    _penalise,
)
_define("sample_bias(Tensor logits, Tensor biases, Tensor bias_rows) -> Tensor", _bias)
_define("sample_mask(Tensor logits, Tensor masks, Tensor mask_rows) -> Tensor", _mask)
_define(
    "sample_nucleus(Tensor logits, Tensor temperature, Tensor top_k, Tensor top_p, Tensor min_p)"
    " -> Tensor",
    _nucleus,
)
_define("sample_logprob(Tensor logits, Tensor targets) -> Tensor", _logprob)
_define(
    "sample_score(Tensor logits, Tensor targets, int n) -> (Tensor, Tensor, Tensor)",
    _score,
)
