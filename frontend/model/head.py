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


def rows_logits(lm_head: Linear, hidden: Tensor, logit_rows: Tensor) -> Tensor:
    """[R, V] f32: logits of the hiddens [T, D] that `logit_rows` names."""
    return lm_head(OPS.core_gather_rows(hidden, logit_rows), torch.float32)


class _FinalHead(nn.Module):
    """Final norm and output projection. `keeps_hidden`: the normed rows are a result, for MTP."""

    def __init__(self, config: ModelConfig, *, keeps_hidden: bool = False) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.keeps_hidden = keeps_hidden

    def hidden(self, delta: Tensor, residual: Tensor) -> Tensor:
        """[T, D]."""
        norm = self.get_submodule("model.norm")
        assert isinstance(norm, RMSNorm)
        return norm(OPS.core_add(residual, delta, torch.float32))

    def results(self, hidden: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """What the head gives, with the hiddens last where they are kept."""
        return (*given, hidden) if self.keeps_hidden else given


class Head(_FinalHead):
    """Ids and log-probabilities of the rows that `logit_rows` names; logits are f32."""

    def forward(
        self, delta: Tensor, residual: Tensor, logit_rows: Tensor,
        temperature: Tensor, seeds: Tensor, counters: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Picked ids [R] and their log-probabilities [R]."""
        hidden = self.hidden(delta, residual)
        logits = rows_logits(self.lm_head, hidden, logit_rows)
        return self.results(hidden, *OPS.sample_pick(logits, temperature, seeds, counters))


class ScoringHead(_FinalHead):
    """The same from each row's nucleus, with log-probabilities of targets and the likeliest ids.

    All of them are those of the whole, unscaled logits: what a client is told does not depend on
    how it samples.
    """

    def forward(
        self, delta: Tensor, residual: Tensor, logit_rows: Tensor,
        temperature: Tensor, seeds: Tensor, counters: Tensor, targets: Tensor, top_p: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Picked ids and log-probabilities, then those of targets [R] and of top ids [R, n]."""
        hidden = self.hidden(delta, residual)
        logits = rows_logits(self.lm_head, hidden, logit_rows)
        nucleus = OPS.sample_nucleus(logits, temperature, top_p)
        ids, _ = OPS.sample_pick(nucleus, temperature, seeds, counters)
        scored = OPS.sample_score(logits, targets, TOP_LOGPROBS)
        return self.results(hidden, ids, OPS.sample_logprob(logits, ids), *scored)
