"""Token choice with counted noise, and scores, on torch. Knows nothing of programs."""

from __future__ import annotations

from typing import cast

import torch

_MASK = 0xFFFFFFFF


def noise_bits(seeds: torch.Tensor, counters: torch.Tensor, vocab: int) -> torch.Tensor:
    """32 random bits of (seed, counter, index) as i64 [R, vocab].

    Products wrap modulo 2^64, which keeps their low 32 bits right; the mask drops the rest.
    """
    index = torch.arange(vocab, device=seeds.device, dtype=torch.int64)
    row = seeds.long() * 0x9E3779B1 + counters.long() * 0x85EBCA77
    x = (row[:, None] + index * 0xC2B2AE3D) & _MASK
    x ^= x >> 16
    x = (x * 0x7FEB352D) & _MASK
    x ^= x >> 15
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def pick(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    seeds: torch.Tensor,
    counters: torch.Tensor,
    ids: torch.Tensor,
    logprobs: torch.Tensor,
) -> None:
    """Write the largest logit's id at temperature 0, else the largest logit/temperature + noise.

    The noise is f64: u has 25 significant bits, one more than f32 holds.
    """
    u = ((noise_bits(seeds, counters, logits.shape[1]) >> 8).double() + 0.5) / 2**24
    divisor = temperature.double()[:, None]
    warm = logits.double() / torch.where(divisor > 0, divisor, 1.0) - torch.log(-torch.log(u))
    chosen = torch.where(divisor > 0, warm, logits.double()).argmax(-1, keepdim=True)
    _write(logits, chosen, ids, logprobs)


def _write(
    logits: torch.Tensor, chosen: torch.Tensor, ids: torch.Tensor, logprobs: torch.Tensor
) -> None:
    ids.copy_(chosen[:, 0])
    # not logsumexp: it sums one long row in other parts than several
    torch.gather(logits.log_softmax(-1), 1, chosen, out=logprobs[:, None])


def pick_greedy_or_warm(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    seeds: torch.Tensor,
    counters: torch.Tensor,
    ids: torch.Tensor,
    logprobs: torch.Tensor,
) -> None:
    """As `pick`, but reads the temperatures on the host and makes no noise where none is wanted."""
    if any(cast("list[float]", temperature.tolist())):
        pick(logits, temperature, seeds, counters, ids, logprobs)
    else:
        _write(logits, logits.argmax(-1, keepdim=True), ids, logprobs)


def penalise(
    logits: torch.Tensor,
    counts: torch.Tensor,
    count_rows: torch.Tensor,
    recent: torch.Tensor,
    repetition: torch.Tensor,
    frequency: torch.Tensor,
    presence: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Write the logits less what is asked for ids that have come; of rows that name no counts (-1)
    as they are."""
    ids = torch.arange(logits.shape[1], device=logits.device, dtype=torch.int32)
    held = counts[count_rows.clamp(min=0).long()]
    outputs = held >> 1
    for number in range(recent.shape[1]):
        outputs += recent[:, number, None] == ids
    is_seen = ((held & 1) == 1) | (outputs > 0)
    factor = repetition[:, None]
    changed = torch.where(logits > 0, logits / factor, logits * factor)
    changed = torch.where(is_seen, changed, logits)
    changed -= frequency[:, None] * outputs
    changed -= presence[:, None] * (outputs > 0)
    out.copy_(torch.where((count_rows >= 0)[:, None], changed, logits))


def penalise_where_wanted(
    logits: torch.Tensor,
    counts: torch.Tensor,
    count_rows: torch.Tensor,
    recent: torch.Tensor,
    repetition: torch.Tensor,
    frequency: torch.Tensor,
    presence: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """As `penalise`, but reads on the host which rows are counted, and looks at no other's."""
    out.copy_(logits)
    wanted = torch.nonzero(count_rows >= 0)[:, 0]
    if wanted.numel():
        changed = torch.empty_like(logits[wanted])
        rows, before = count_rows[wanted], recent[wanted]
        asked = [each[wanted] for each in (repetition, frequency, presence)]
        penalise(logits[wanted], counts, rows, before, asked[0], asked[1], asked[2], changed)
        out[wanted] = changed


def bias(
    logits: torch.Tensor, biases: torch.Tensor, bias_rows: torch.Tensor, out: torch.Tensor
) -> None:
    """Write the logits plus the bias that their row names (-1: none)."""
    named = (bias_rows >= 0)[:, None]
    own = biases[bias_rows.clamp(min=0).long()]
    out.copy_(torch.where(named, logits + own, logits))


def bias_where_wanted(
    logits: torch.Tensor, biases: torch.Tensor, bias_rows: torch.Tensor, out: torch.Tensor
) -> None:
    """As `bias`, but reads on the host which rows have one, and looks at no other's numbers."""
    out.copy_(logits)
    wanted = torch.nonzero(bias_rows >= 0)[:, 0]
    if wanted.numel():
        out[wanted] = logits[wanted] + biases[bias_rows[wanted].long()]


def mask(
    logits: torch.Tensor, masks: torch.Tensor, mask_rows: torch.Tensor, out: torch.Tensor
) -> None:
    """Write the logits, -inf for ids whose bit is 0 in the mask that their row names (-1: none)."""
    index = torch.arange(logits.shape[1], device=logits.device)
    words = masks[mask_rows.clamp(min=0).long()][:, index // 32]
    forbidden = words.bitwise_right_shift_((index % 32).int()).bitwise_and_(1) == 0
    forbidden &= (mask_rows >= 0)[:, None]
    out.copy_(logits).masked_fill_(forbidden, float("-inf"))


def mask_where_wanted(
    logits: torch.Tensor, masks: torch.Tensor, mask_rows: torch.Tensor, out: torch.Tensor
) -> None:
    """As `mask`, but reads on the host which rows have one, and looks at no other's bits."""
    out.copy_(logits)
    wanted = torch.nonzero(mask_rows >= 0)[:, 0]
    if wanted.numel():
        allowed = torch.empty_like(logits[wanted])
        mask(logits[wanted], masks, mask_rows[wanted], allowed)
        out[wanted] = allowed


def nucleus(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Write the logits, -inf for ids that their row is not sampled from: behind the first top_k,
    outside the nucleus, or too unlikely.

    Masses are summed as integers: then the order in which a device adds them changes no bit, which
    a floating-point scan does not promise. 2^62 is the whole at most; each mass is off by less than
    2^-44 of the likeliest id's, all of 129280 by less than 1e-8.
    """
    vocab = logits.shape[1]
    ranked, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    divisor, share = temperature.double()[:, None], top_p.double()[:, None]
    scaled = ranked.double() / torch.where(divisor > 0, divisor, 1.0)
    ratio = torch.exp(scaled - scaled[:, :1])
    is_ranked = torch.arange(vocab, device=logits.device) < top_k[:, None]
    is_ranked |= top_k[:, None] <= 0
    mass = (ratio * 2.0 ** (62 - (vocab - 1).bit_length())).long().mul_(is_ranked)
    upto = mass.cumsum(-1)
    kept = (upto - mass).double() < share * upto[:, -1:].double()
    kept |= share >= 1
    kept &= is_ranked & ~(ratio < min_p.double()[:, None])
    kept[:, :1].fill_(True)
    kept |= divisor <= 0
    outside = torch.empty_like(kept).scatter_(1, order, ~kept)
    out.copy_(logits).masked_fill_(outside, float("-inf"))


def nucleus_where_wanted(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """As `nucleus`, but reads on the host which rows have one, and sorts no other."""
    out.copy_(logits)
    narrows = (top_k > 0) | (top_p < 1) | (min_p > 0)
    wanted = torch.nonzero((temperature > 0) & narrows)[:, 0]
    if wanted.numel():
        inside = torch.empty_like(logits[wanted])
        asked = [each[wanted] for each in (temperature, top_k, top_p, min_p)]
        nucleus(logits[wanted], asked[0], asked[1], asked[2], asked[3], inside)
        out[wanted] = inside


def _of_targets(logprobs: torch.Tensor, targets: torch.Tensor, out: torch.Tensor) -> None:
    found = logprobs.gather(1, targets.clamp(min=0).long()[:, None])[:, 0]
    out.copy_(found.masked_fill_(targets < 0, 0))


def logprob(logits: torch.Tensor, targets: torch.Tensor, out: torch.Tensor) -> None:
    """Write each target's log-probability (-1: 0)."""
    _of_targets(logits.float().log_softmax(-1), targets, out)


def score(
    logits: torch.Tensor,
    targets: torch.Tensor,
    target_logprobs: torch.Tensor,
    top_ids: torch.Tensor,
    top_logprobs: torch.Tensor,
) -> None:
    """Write each target's log-probability (-1: 0) and the n likeliest ids with theirs.

    A stable sort, because torch.topk promises no order among equals.
    """
    logprobs = logits.float().log_softmax(-1)
    _of_targets(logprobs, targets, target_logprobs)
    order = torch.sort(logits, dim=-1, descending=True, stable=True).indices[:, : top_ids.shape[1]]
    top_ids.copy_(order)
    torch.gather(logprobs, 1, order, out=top_logprobs)
