"""Both ends of the model: embedding, and final norm with logits and sampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lostwax.frontend.config import ModelConfig
from lostwax.frontend.model.layers import Linear, RMSNorm, parameter
from lostwax.frontend.ops import OPS

TOP_LOGPROBS = 20
"""How many likeliest ids the scoring head gives: what the OpenAI interface allows at most."""


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


class _LogitsHead(nn.Module):
    """Final norm and logits of the rows that `logit_rows` names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)

    def logits(self, delta: Tensor, residual: Tensor, logit_rows: Tensor) -> Tensor:
        """[R, V] f32."""
        norm = self.get_submodule("model.norm")
        assert isinstance(norm, RMSNorm)
        total = OPS.core_add(residual, delta, torch.float32)
        return self.lm_head(OPS.core_gather_rows(norm(total), logit_rows), torch.float32)


class Head(_LogitsHead):
    """Ids and log-probabilities of the rows that `logit_rows` names; logits are f32."""

    def forward(
        self, delta: Tensor, residual: Tensor, logit_rows: Tensor,
        temperature: Tensor, seeds: Tensor, counters: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Picked ids [R] and their log-probabilities [R]."""
        logits = self.logits(delta, residual, logit_rows)
        return OPS.sample_pick(logits, temperature, seeds, counters)


class ScoringHead(_LogitsHead):
    """The same, with log-probabilities of given targets and of the likeliest ids."""

    def forward(
        self, delta: Tensor, residual: Tensor, logit_rows: Tensor,
        temperature: Tensor, seeds: Tensor, counters: Tensor, targets: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Picked ids and log-probabilities, then those of targets [R] and of top ids [R, n]."""
        logits = self.logits(delta, residual, logit_rows)
        picked = OPS.sample_pick(logits, temperature, seeds, counters)
        return (*picked, *OPS.sample_score(logits, targets, TOP_LOGPROBS))
