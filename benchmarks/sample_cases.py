"""Values of the sampling kernels' cases: shapes, seeded inputs and fp64 references, on torch alone.

`sample_tail` is penalties, a bias, a mask, a nucleus, the pick from it and its log-probability, one
after another. Half of the rows are greedy, the others have a nucleus of 0.95 at temperature 1; in
cases that are not timed some of these are of 50 ids at most, or of likely ids only. Every third row
has a mask, every fourth penalties and every fifth a bias, in timed cases of `sample_tail` none. A
case whose sizes name a `top_k`, a `top_p` or `min_p` in hundredths, or `penalties`, has half of its
rows sampled so and in no other way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from lostwax.ir.contract.step import MAX_DRAFTS, MAX_RANKED
from lostwax.ir.reference.sample import BORDER

Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[tuple[int, ...], str, tuple[int, ...]]]
_PICK = {"temperature": "f32", "seeds": "i32", "counters": "i32"}
_PICKED = {"op.ids": "i32", "op.logprobs": "f32"}
_MASK = {"mask_rows": "i32"}
_PENALTIES = {
    "count_rows": "i32", "repetition": "f32", "frequency": "f32", "presence": "f32",
}  # fmt: skip
_BIAS = {"bias_rows": "i32"}
_NARROW = {"top_k": "i32", "top_p": "f32", "min_p": "f32"}
_OF_ROWS = {
    "mask": _MASK,
    "nucleus": {"temperature": "f32"} | _NARROW,
    "pick": _PICK | _PICKED,
    "logprob": {"targets": "i32", "op.logprobs": "f32"},
    "score": {"targets": "i32", "op.target_logprobs": "f32"},
    "sample_tail": _PENALTIES
    | _BIAS
    | _MASK
    | _PICK
    | _NARROW
    | {"picked.ids": "i32", "logprob": "f32"},
}
OPS = tuple(_OF_ROWS)
TOP_K, MIN_P = 50, 0.02
TOP_P = 0.95
NUM_MASKS = NUM_BIASES = NUM_COUNTS = 5
WAYS: tuple[dict[str, int], ...] = (
    {"top_p": 100},
    {"top_p": 95},
    {"top_k": 40, "top_p": 100},
    {"top_p": 100, "min_p": 5},
    {"top_k": 40, "top_p": 100, "min_p": 5},
    {"top_k": 40, "top_p": 95},
    {"top_k": 1000, "top_p": 95},
    {"top_p": 100, "penalties": 1},
)
"""How half of the rows are sampled, for timing; by the first as in the head `pick`."""

ROW_KINDS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda x: x,
    lambda x: (2 * x).round() / 2,
    lambda x: 1 + 1e-6 * x,
    lambda x: torch.full_like(x, -1.1),
    lambda x: x.sort().values,
    lambda x: x.masked_fill(x < 0, -torch.inf),
    lambda x: 1e-42 * x,
    lambda x: 1e30 * x,
)
"""Logits on which sampling can go wrong, from normal ones."""


def shapes(op: str, rows: int, vocab: int) -> Shapes:
    """Shape, dtype and strides of every value."""
    found: Shapes = {name: ((rows,), dtype, ()) for name, dtype in _OF_ROWS[op].items()}
    wide = ((rows, vocab), "f32", ())
    found |= {"logits": wide} | ({"op.out": wide} if op in ("mask", "nucleus") else {})
    if op == "score":
        top = (rows, min(MAX_RANKED, vocab))
        found |= {"op.top_ids": (top, "i32", ()), "op.top_logprobs": (top, "f32", ())}
    if "mask_rows" in found:
        found["masks"] = ((NUM_MASKS, -(-vocab // 32)), "i32", ())
    if "bias_rows" in found:
        found["biases"] = ((NUM_BIASES, vocab), "f32", ())
        found["counts"] = ((NUM_COUNTS, vocab), "i32", ())
        found["recent"] = ((rows, MAX_DRAFTS), "i32", ())
    return found


def inputs(
    op: str, dims: Mapping[str, int], normal: Callable[..., torch.Tensor], full: bool
) -> Tensors:
    """Rows of every kind in turn; plain random rows when `full`."""
    rows, vocab = dims["rows"], dims["vocab"]
    logits = 3 * normal(rows, vocab)
    for row in range(0 if full else rows):
        logits[row] = ROW_KINDS[(row // 2) % len(ROW_KINDS)](logits[row])
    number = torch.arange(rows, device=logits.device)
    found = {
        "temperature": (number % 2 == 0).float(),
        "top_k": torch.where((number % 4 == 0) & (not full), TOP_K, 0),
        "top_p": torch.where(number % 2 == 0, TOP_P, 1.0),
        "min_p": torch.where((number % 8 == 0) & (not full), MIN_P, 0.0),
        "seeds": number * 7919 - 3,
        "counters": number,
        "targets": torch.where(number % 3 == 2, -1, logits.argmax(-1)),
        "mask_rows": torch.where(number % 3 == 0, number % NUM_MASKS, -1),
        "count_rows": torch.where(number % 4 == 2, number % NUM_COUNTS, -1),
        "repetition": torch.where(number % 3 == 0, 1.3, 0.9),
        "frequency": torch.where(number % 3 == 1, 0.5, 0.0),
        "presence": torch.where(number % 5 < 2, -0.25, 0.5),
        "bias_rows": torch.where(number % 5 == 1, number % NUM_BIASES, -1),
    }
    if full and op == "sample_tail":
        for name in ("mask_rows", "bias_rows", "count_rows"):
            found[name] = torch.full_like(number, -1)
    if "top_p" in dims:
        found |= _sampled(dims, number)
    if "bias_rows" in _OF_ROWS[op]:
        found["biases"] = normal(NUM_BIASES, vocab)
        found["counts"] = (4 * normal(NUM_COUNTS, vocab)).clamp(min=0).long()
        found["recent"] = (
            number[:, None] * 7 + torch.arange(MAX_DRAFTS, device=number.device)
        ) % vocab
    if "mask_rows" in _OF_ROWS[op]:
        words = normal(NUM_MASKS, -(-vocab // 32)) * 2.0**30
        found["masks"] = words.clamp(-(2.0**31), 2.0**31 - 256).long()
    return {"logits": logits} | {
        n: found[n] for n in ("counts", "recent", "biases", "masks", *_OF_ROWS[op]) if n in found
    }


def _sampled(dims: Mapping[str, int], number: torch.Tensor) -> Tensors:
    """What half of the rows ask for, where a case says it."""
    even = number % 2 == 0
    return {
        "top_k": torch.where(even, dims.get("top_k", 0), 0),
        "top_p": torch.where(even, dims["top_p"] / 100, 1.0),
        "min_p": torch.where(even, dims.get("min_p", 0) / 100, 0.0),
        "count_rows": torch.where(even & ("penalties" in dims), number % NUM_COUNTS, -1),
    }


def reference(op: str, x: Tensors) -> Tensors:
    """Outputs in fp64, ids exact; NaN where rounding may decide."""
    logits = x["logits"].double()
    if op == "mask":
        return {"op.out": _masked(logits, x["masks"], x["mask_rows"])}
    if op == "nucleus":
        return {"op.out": _nucleus(logits, x)}
    if op == "logprob":
        found = _logprobs(logits, x["targets"].clamp(min=0))
        return {"op.logprobs": found.masked_fill(x["targets"] < 0, 0)}
    if op == "score":
        logprobs = logits.log_softmax(-1)
        targets = _logprobs(logits, x["targets"].clamp(min=0)).masked_fill(x["targets"] < 0, 0)
        ids = logits.sort(dim=-1, descending=True, stable=True).indices[:, :MAX_RANKED]
        top = {"op.top_ids": ids.int(), "op.top_logprobs": logprobs.gather(1, ids)}
        return {"op.target_logprobs": targets} | top
    if op == "sample_tail":
        rows = x["bias_rows"]
        own = x["biases"].double()[rows.clamp(min=0)]
        less = _penalised(logits, x).float().double()  # as f32, what is sampled from
        biased = torch.where((rows >= 0)[:, None], (less + own).float().double(), less)
        masked = _masked(biased, x["masks"], x["mask_rows"])
        inside = _nucleus(masked, x)
        ids = _picked(inside.masked_fill(inside.isnan(), -torch.inf), x)
        return {"picked.ids": ids.int(), "logprob": _logprobs(logits, ids)}
    ids = _picked(logits, x)
    return {"op.ids": ids.int(), "op.logprobs": _logprobs(logits, ids)}


def _penalised(logits: torch.Tensor, x: Tensors) -> torch.Tensor:
    rows, ids = x["count_rows"], torch.arange(logits.shape[1], device=logits.device)
    held = x["counts"].long()[rows.clamp(min=0)]
    outputs = held // 2 + (x["recent"][:, :, None] == ids).sum(1)
    factor, often, once = (x[n].double()[:, None] for n in ("repetition", "frequency", "presence"))
    repeated = torch.where(logits > 0, logits / factor, logits * factor)
    less = torch.where((outputs > 0) | (held % 2 == 1), repeated, logits)
    less = less - often * outputs - once * (outputs > 0)
    return torch.where((rows >= 0)[:, None], less, logits)


def _logprobs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(1, ids.long()[:, None])[:, 0]


def _masked(logits: torch.Tensor, masks: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    index = torch.arange(logits.shape[1], device=logits.device)
    words = masks.long()[rows.clamp(min=0).long()][:, index // 32]
    allowed = ((words >> (index % 32)) & 1 == 1) | (rows < 0)[:, None]
    return logits.masked_fill(~allowed, -torch.inf)


def _picked(logits: torch.Tensor, x: Tensors) -> torch.Tensor:
    heat = x["temperature"].double()[:, None]
    score = torch.where(heat > 0, logits / heat.clamp(min=1e-30) + _gumbel(x), logits)
    return score.argmax(-1)


def _nucleus(logits: torch.Tensor, x: Tensors) -> torch.Tensor:
    heat, count, share, least = (
        x[name].double()[:, None] for name in ("temperature", "top_k", "top_p", "min_p")
    )
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    is_ranked = (torch.arange(logits.shape[1], device=logits.device) < count) | (count <= 0)
    heated = torch.where(is_ranked, ranked / heat.clamp(min=1e-30), -torch.inf)
    mass = heated.softmax(-1)
    before, ratio = mass.cumsum(-1) - mass, mass / mass[:, :1]
    is_open = ((before - share).abs() <= BORDER) & (share < 1)
    is_open |= ((ratio - least).abs() <= BORDER) & (least > 0)
    is_inside = is_ranked & ((before < share) | (share >= 1)) & ((ratio >= least) | (least <= 0))
    kept = torch.where(is_inside, ranked, -torch.inf)
    kept = torch.where(is_open & is_ranked, torch.nan, kept)
    kept[:, 0] = ranked[:, 0]
    found = torch.empty_like(logits).scatter_(1, order, kept)
    return torch.where((heat > 0) & ((share < 1) | (count > 0) | (least > 0)), found, logits)


def _gumbel(x: Tensors) -> torch.Tensor:
    """The counted noise of `ir/reference/sample.py`, f64."""
    index = torch.arange(x["logits"].shape[1], device=x["logits"].device)
    row = x["seeds"].long() * 0x9E3779B1 + x["counters"].long() * 0x85EBCA77
    bits = (row[:, None] + index * 0xC2B2AE3D) & 0xFFFFFFFF
    bits ^= bits >> 16
    bits = (bits * 0x7FEB352D) & 0xFFFFFFFF
    bits ^= bits >> 15
    bits = (bits * 0x846CA68B) & 0xFFFFFFFF
    bits ^= bits >> 16
    return -torch.log(-torch.log(((bits >> 8).double() + 0.5) / 2**24))
