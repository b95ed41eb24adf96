"""The portable lowerings' kernels on the buffers of the sampling kernels' cases."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lostwax.backends.portable.kernels import sample

Tensors = dict[str, torch.Tensor]


def portable(op: str, t: Tensors) -> Callable[[], None]:
    """What does the same as a case of this op, into the same outputs."""
    if op == "mask":
        return lambda: sample.mask(t["logits"], t["masks"], t["mask_rows"], t["op.out"])
    if op == "nucleus":
        given = (t["logits"], t["temperature"], t["top_k"], t["top_p"], t["min_p"])
        return lambda: sample.nucleus(*given, t["op.out"])
    if op == "pick":
        given = (t["logits"], t["temperature"], t["seeds"], t["counters"])
        return lambda: sample.pick(*given, t["op.ids"], t["op.logprobs"])
    if op == "logprob":
        return lambda: sample.logprob(t["logits"], t["targets"], t["op.logprobs"])
    if op == "score":
        found = (t["op.target_logprobs"], t["op.top_ids"], t["op.top_logprobs"])
        return lambda: sample.score(t["logits"], t["targets"], *found)
    return lambda: _tail(t)


def _tail(t: Tensors) -> None:
    """All that a case `sample_tail` does."""
    inside, unread = torch.empty_like(t["logits"]), torch.empty_like(t["logprob"])
    told = (t["repetition"], t["frequency"], t["presence"])
    sample.penalise(t["logits"], t["counts"], t["count_rows"], t["recent"], *told, inside)
    sample.bias(inside, t["biases"], t["bias_rows"], inside)
    sample.mask(inside, t["masks"], t["mask_rows"], inside)
    sample.nucleus(inside, t["temperature"], t["top_k"], t["top_p"], t["min_p"], inside)
    given = (inside, t["temperature"], t["seeds"], t["counters"])
    sample.pick(*given, t["picked.ids"], unread)
    sample.logprob(t["logits"], t["picked.ids"], t["logprob"])
