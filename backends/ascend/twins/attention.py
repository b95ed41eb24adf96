"""Twins of the lightning indexer and of sparse attention, over paged keys."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lostwax.backends.ascend.twins.checked import RuleBroken, numbers

NOTHING = -7
"""What stands behind a row's positions: the page says no value, so that nobody may rely on one."""


def _requests(ends: Tensor, lengths: Tensor) -> Iterator[tuple[int, range, int]]:
    """Each request's number, rows and length."""
    start = 0
    pairs = zip(numbers(ends), numbers(lengths), strict=True)
    for number, (end, length) in enumerate(pairs):
        yield number, range(start, end), length
        start = end


def _rows_at(pages: Tensor, table: Tensor, positions: Tensor) -> Tensor:
    """f32 [n, D]: what the pages hold of a request's positions."""
    block = pages.shape[1]
    return pages[table[positions // block].long(), positions % block, 0].float()


def lightning_indexer(
    query: Tensor,
    key: Tensor,
    weights: Tensor,
    *,
    actual_seq_lengths_query: Tensor | None = None,
    actual_seq_lengths_key: Tensor | None = None,
    block_table: Tensor | None = None,
    layout_query: str = "BSND",
    layout_key: str = "BSND",
    sparse_count: int = 2048,
    sparse_mode: int = 3,
    pre_tokens: int = 2**63 - 1,
    next_tokens: int = 2**63 - 1,
    return_value: bool = False,
) -> tuple[Tensor, Tensor]:
    """npu_lightning_indexer: the positions of the largest weighed sums of relu(q k), best first."""
    assert actual_seq_lengths_query is not None
    assert actual_seq_lengths_key is not None
    assert block_table is not None
    out = torch.full((query.shape[0], 1, sparse_count), NOTHING, dtype=torch.int32)
    for number, rows, length in _requests(actual_seq_lengths_query, actual_seq_lengths_key):
        keys = _rows_at(key, block_table[number], torch.arange(length))
        for place, row in enumerate(rows):
            seen = length - len(rows) + place + 1 if sparse_mode == 3 else length
            seen = max(seen, 0)
            scores = torch.relu(query[row].float() @ keys[:seen].T) * weights[row].float()[:, None]
            best = torch.sort(scores.sum(0), descending=True, stable=True).indices
            found = best[:sparse_count].int()
            out[row, 0, : found.numel()] = found
    return out, query.new_empty(0)


def sparse_flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    sparse_indices: Tensor,
    scale_value: float,
    *,
    block_table: Tensor | None = None,
    actual_seq_lengths_query: Tensor | None = None,
    actual_seq_lengths_kv: Tensor | None = None,
    query_rope: Tensor | None = None,
    key_rope: Tensor | None = None,
    sparse_block_size: int = 1,
    layout_query: str = "BSND",
    layout_kv: str = "BSND",
    sparse_mode: int = 3,
    pre_tokens: int = 2**63 - 1,
    next_tokens: int = 2**63 - 1,
    attention_mode: int = 0,
    return_softmax_lse: bool = False,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """npu_sparse_flash_attention: softmax over the selected positions up to the first negative.

    Refuses a position that its request does not have: what a device reads there nobody says.
    """
    assert block_table is not None
    assert actual_seq_lengths_query is not None
    assert actual_seq_lengths_kv is not None
    assert query_rope is not None
    assert key_rope is not None
    assert sinks is None
    if value is None or value.data_ptr() != key.data_ptr():
        raise ValueError("npu_sparse_flash_attention: key and value must be one tensor")
    out = torch.zeros_like(query)
    for number, rows, length in _requests(actual_seq_lengths_query, actual_seq_lengths_kv):
        for place, row in enumerate(rows):
            chosen = sparse_indices[row, 0]
            chosen = chosen[: int((chosen >= 0).cumprod(0).sum())].long()
            if bool((chosen >= length).any()):
                raise RuleBroken(
                    f"npu_sparse_flash_attention: row {row} selects position {int(chosen.max())}"
                    f" of a request of {length}"
                )
            if sparse_mode == 3:
                chosen = chosen[chosen <= length - len(rows) + place]
            keys = _rows_at(key, block_table[number], chosen)
            turned = _rows_at(key_rope, block_table[number], chosen)
            scores = query[row].float() @ keys.T + query_rope[row].float() @ turned.T
            if chosen.numel():
                out[row] = (torch.softmax(scores * scale_value, -1) @ keys).to(out.dtype)
    empty = query.new_empty(0, dtype=torch.float32)
    return out, empty, empty
