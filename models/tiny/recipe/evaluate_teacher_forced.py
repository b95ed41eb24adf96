"""Held-out accuracy by teacher forcing: if the best token is right at every place that the model
writes, greedy decoding would write exactly that text. Generates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recipe import attention
from recipe.data.document import draw
from recipe.data.mixture import evaluation_sets
from recipe.model import Mode, Model
from recipe.packing import PAD_ID, Encoded, Encoder

BUCKETS = (256, 512, 1024, 2048, 4096)
LONG = ("tools", "json", "kv", "needle")  # sets whose contexts exceed index_topk


def held_out(encoder: Encoder, documents: int, seed: int) -> dict[str, list[Encoded]]:
    """Documents of every set. None is in the training data."""
    sets: dict[str, list[Encoded]] = {}
    for name, family in evaluation_sets(encoder.count).items():
        rng = Random(f"{seed} {name}")
        chosen: list[Encoded] = []
        while len(chosen) < documents:
            encoded = encoder(draw(family, rng, held_out=True))
            if len(encoded.ids) <= BUCKETS[-1]:
                chosen.append(encoded)
        sets[name] = chosen
    return sets


@dataclass(slots=True)
class AttentionMass:
    """Stands in for `sparse_attention` and notes shares of the dense attention, heads averaged.

    For each query what its selection holds, and what the best selection of that size would hold.
    """

    count: int
    shares: list[Tensor] = field(default_factory=list[Tensor])

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, logits: Tensor, selected: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attend as before."""
        seen = attention.causal(q.shape[2], q.device)
        whole = attention.probabilities(q, k, seen[None], scale).mean(1)
        best = whole.topk(min(self.count, whole.shape[-1]), -1, sorted=False).values
        self.shares.append(torch.stack(((whole * selected).sum(-1), best.sum(-1))))
        del whole, best
        return attention.sparse_attention(q, k, v, logits, selected, scale)

    def take(self) -> Tensor:
        """[layers, 2, packs, length] of the pass that is over."""
        taken, self.shares = torch.stack(self.shares), []
        return taken


@dataclass(slots=True)
class Mass:
    """Sums over queries of a share of the attention, layer by layer."""

    total: Tensor | None = None
    rows: int = 0

    def add(self, shares: Tensor) -> None:
        """shares: [layers, queries]."""
        summed = shares.double().sum(1)
        self.total = summed if self.total is None else self.total + summed
        self.rows += shares.shape[1]

    def mean(self) -> list[float] | None:
        """Of each layer, the MTP layer last; None where there was no query."""
        if self.total is None or not self.rows:
            return None
        shares: list[float] = (self.total / self.rows).tolist()
        return [round(share, 4) for share in shares]


@dataclass(slots=True)
class Tally:
    """Counts over the documents of one set."""

    documents: int = 0
    right: int = 0
    written: int = 0
    written_right: int = 0
    drafts: int = 0
    drafts_taken: int = 0
    selected: Mass = field(default_factory=Mass)
    best: Mass = field(default_factory=Mass)

    def report(self) -> dict[str, Any]:
        """Shares, rounded."""
        row: dict[str, Any] = {
            "documents": self.documents,
            "accuracy": round(self.right / max(self.documents, 1), 4),
            "token_accuracy": round(self.written_right / max(self.written, 1), 5),
            "mtp_acceptance": round(self.drafts_taken / max(self.drafts, 1), 4),
        }
        for name, mass in (("selected", self.selected), ("best", self.best)):
            if (shares := mass.mean()) is not None:
                row[f"{name}_attention_mass"] = shares
        return row


@torch.no_grad()
def evaluate(
    model: Model, sets: dict[str, list[Encoded]], mode: Mode, *, tokens_a_pass: int, device: str,
    mass: AttentionMass | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """A row of shares for each set. `mass` is given if it is among the model's pieces."""
    tallies = {name: Tally() for name in sets}
    for names, encoded, tokens in _passes(sets, tokens_a_pass):
        batch = torch.from_numpy(tokens).to(device)
        out = model(batch, mode, recall=mode == "sparse" and mass is None)
        best = model.logits(out.hidden).argmax(-1)
        drafted = model.logits(out.drafted).argmax(-1)
        right = (best[:, :-1] == batch[:, 1:]).cpu().numpy()
        taken = (drafted[:, :-2] == batch[:, 2:]).cpu().numpy()
        selected = torch.stack(out.recalls).cpu() if out.recalls else None
        possible = None
        if mass is not None:
            selected, possible = mass.take().cpu().unbind(1)
        for row, (name, document) in enumerate(zip(names, encoded, strict=True)):
            tally, queries = tallies[name], _choosing(document, model.shape.index_topk)
            _count(tally, document, right[row], taken[row])
            if selected is not None:
                tally.selected.add(selected[:, row, queries])
            if possible is not None:
                tally.best.add(possible[:, row, queries])
    return {name: tally.report() for name, tally in tallies.items()}


def _count(tally: Tally, document: Encoded, right: np.ndarray, taken: np.ndarray) -> None:
    targets = np.flatnonzero(document.written) - 1  # the place before each written token
    hits = right[targets]
    tally.documents += 1
    tally.right += bool(hits.all())
    tally.written += len(hits)
    tally.written_right += int(hits.sum())
    drafts = targets[:-1][document.written[targets[:-1] + 2]]  # not over the end of an answer
    tally.drafts += len(drafts)
    tally.drafts_taken += int(taken[drafts].sum())


def _choosing(document: Encoded, topk: int) -> Tensor:
    """The queries that write a token and see more keys than they may select."""
    places = np.flatnonzero(document.written) - 1
    return torch.from_numpy(places[places >= topk])  # place p sees p + 1 keys


def _passes(
    sets: dict[str, list[Encoded]], tokens_a_pass: int
) -> Iterator[tuple[list[str], list[Encoded], np.ndarray]]:
    """Documents of like length side by side, padded: names, documents, tokens."""
    for low, length in zip((0, *BUCKETS), BUCKETS, strict=False):
        entries = [(n, d) for n, ds in sets.items() for d in ds if low < len(d.ids) <= length]
        rows = max(tokens_a_pass // length, 1)
        for start in range(0, len(entries), rows):
            chosen = entries[start : start + rows]
            tokens = np.full((rows, length), PAD_ID, np.int64)
            for row, (_, document) in enumerate(chosen):
                tokens[row, : len(document.ids)] = document.ids
            yield [n for n, _ in chosen], [d for _, d in chosen], tokens


def table(results: dict[str, dict[str, dict[str, Any]]], column: str = "accuracy") -> str:
    """Sets down, modes across."""
    modes: Sequence[str] = list(results)
    names = dict.fromkeys(name for rows in results.values() for name in rows)
    lines = ["set".ljust(14) + "".join(mode.rjust(16) for mode in modes)]
    for name in names:
        cells = (results[mode].get(name, {}).get(column) for mode in modes)
        shown = "".join(("" if c is None else f"{100 * c:.1f}").rjust(16) for c in cells)
        lines.append(name.ljust(14) + shown)
    return "\n".join(lines)
