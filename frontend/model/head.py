"""Both ends of the model: embedding and final norm, and the heads that read its rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lostwax.frontend.config import ModelConfig
from lostwax.frontend.model.layers import Linear, RMSNorm, parameter
from lostwax.frontend.ops import OPS
from lostwax.ir.contract.step import MAX_RANKED


class _Table(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = parameter(config.vocab_size, config.hidden_size)


class Embed(nn.Module):
    """tokens [T] -> the first (delta, residual)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = _Table(config)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens: [T] -> [T, D], [T, D]."""
        table = self.get_parameter("model.embed_tokens.weight")
        delta = OPS.core_embed(tokens, table)
        return delta, OPS.core_zeros_like(delta)


class FinalNorm(nn.Module):
    """The last (delta, residual) -> what heads and MTP read of every row."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, delta: Tensor, residual: Tensor) -> Tensor:
        """[T, D], [T, D] -> [T, D]."""
        norm = self.get_submodule("model.norm")
        assert isinstance(norm, RMSNorm)
        return norm(OPS.core_add(residual, delta, torch.float32))


class _Head(nn.Module):
    """Output projection over rows of hiddens, which are already normed; logits are f32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lm_head = Linear(config.hidden_size, config.vocab_size)

    def logits(self, hidden: Tensor, logit_rows: Tensor) -> Tensor:
        """[R, V] f32: logits of the hiddens [S, D] that `logit_rows` names."""
        return self.lm_head(OPS.core_gather_rows(hidden, logit_rows), torch.float32)


class PickHead(_Head):
    """Ids and log-probabilities: greedy, or from all ids at the row's temperature."""

    def forward(
        self, hidden: Tensor, logit_rows: Tensor,
        temperature: Tensor, seeds: Tensor, counters: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Picked ids [R] and their log-probabilities [R]."""
        logits = self.logits(hidden, logit_rows)
        return OPS.sample_pick(logits, temperature, seeds, counters)


class SampleHead(_Head):
    """The same of logits with each row's penalties and bias, of the ids that its mask allows, from
    the nucleus of these. Log-probabilities are those of the whole logits as the model gives them:
    what a client is told does not depend on how it samples.
    """

    def forward(
        self, hidden: Tensor, counts: Tensor, biases: Tensor, masks: Tensor, logit_rows: Tensor,
        temperature: Tensor, seeds: Tensor, counters: Tensor,
        top_k: Tensor, top_p: Tensor, min_p: Tensor,
        count_rows: Tensor, recent: Tensor, repetition: Tensor, frequency: Tensor, presence: Tensor,
        bias_rows: Tensor, mask_rows: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Picked ids [R] and their log-probabilities [R]."""
        logits = self.logits(hidden, logit_rows)
        penalised = OPS.sample_penalise(
            logits, counts, count_rows, recent, repetition, frequency, presence
        )
        biased = OPS.sample_bias(penalised, biases, bias_rows)
        masked = OPS.sample_mask(biased, masks, mask_rows)
        return self.sampled(logits, masked, temperature, seeds, counters, top_k, top_p, min_p)

    def sampled(
        self, logits: Tensor, masked: Tensor,
        temperature: Tensor, seeds: Tensor, counters: Tensor,
        top_k: Tensor, top_p: Tensor, min_p: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """logits, masked: [R, V], the others [R] -> ids [R], log-probabilities [R]."""
        nucleus = OPS.sample_nucleus(masked, temperature, top_k, top_p, min_p)
        ids, _ = OPS.sample_pick(nucleus, temperature, seeds, counters)
        return ids, OPS.sample_logprob(logits, ids)


class ScoreHead(SampleHead):
    """The same with log-probabilities of targets and the likeliest ids."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (a head with one input more)
        self, hidden: Tensor, counts: Tensor, biases: Tensor, masks: Tensor, logit_rows: Tensor,
        temperature: Tensor, seeds: Tensor, counters: Tensor,
        top_k: Tensor, top_p: Tensor, min_p: Tensor,
        count_rows: Tensor, recent: Tensor, repetition: Tensor, frequency: Tensor, presence: Tensor,
        bias_rows: Tensor, mask_rows: Tensor, targets: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Picked ids and log-probabilities, then those of targets [R] and of top ids [R, n]."""
        logits = self.logits(hidden, logit_rows)
        penalised = OPS.sample_penalise(
            logits, counts, count_rows, recent, repetition, frequency, presence
        )
        biased = OPS.sample_bias(penalised, biases, bias_rows)
        masked = OPS.sample_mask(biased, masks, mask_rows)
        ids, logprobs = self.sampled(
            logits, masked, temperature, seeds, counters, top_k, top_p, min_p
        )
        return ids, logprobs, *OPS.sample_score(logits, targets, MAX_RANKED)
