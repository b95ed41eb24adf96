"""Held-out accuracy by teacher forcing: if the best token is right at every place that the model
writes, greedy decoding would write exactly that text. Generates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
class Tally:
    """Counts over the documents of one set."""

    documents: int = 0
    right: int = 0
    written: int = 0
    written_right: int = 0
    drafts: int = 0
    drafts_taken: int = 0
    recall: Tensor | None = None
    rows: int = 0

    def report(self) -> dict[str, Any]:
        """Shares, rounded."""
        row: dict[str, Any] = {
            "documents": self.documents,
            "accuracy": round(self.right / max(self.documents, 1), 4),
            "token_accuracy": round(self.written_right / max(self.written, 1), 5),
            "mtp_acceptance": round(self.drafts_taken / max(self.drafts, 1), 4),
        }
        if self.recall is not None and self.rows:
            shares: list[float] = (self.recall / self.rows).tolist()
            row["selected_attention_mass"] = [round(share, 4) for share in shares]
        return row


@torch.no_grad()
def evaluate(
    model: Model, sets: dict[str, list[Encoded]], mode: Mode, *, tokens_a_pass: int, device: str
) -> dict[str, dict[str, Any]]:
    """A row of shares for each set."""
    tallies = {name: Tally() for name in sets}
    for names, encoded, tokens in _passes(sets, tokens_a_pass):
        batch = torch.from_numpy(tokens).to(device)
        out = model(batch, mode, recall=mode == "sparse")
        best = model.logits(out.hidden).argmax(-1)
        drafted = model.logits(out.drafted).argmax(-1)
        right = (best[:, :-1] == batch[:, 1:]).cpu().numpy()
        taken = (drafted[:, :-2] == batch[:, 2:]).cpu().numpy()
        recall = torch.stack(out.recalls).cpu() if out.recalls else None
        for row, (name, document) in enumerate(zip(names, encoded, strict=True)):
            _count(tallies[name], document, right[row], taken[row])
            if recall is not None:
                _count_recall(tallies[name], document, recall[:, row], model.shape.index_topk)
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


def _count_recall(tally: Tally, document: Encoded, recall: Tensor, topk: int) -> None:
    places = np.flatnonzero(document.written) - 1
    places = torch.from_numpy(places[places >= topk])  # before that, all is selected
    if len(places):
        summed = recall[:, places].sum(1)
        tally.recall = summed if tally.recall is None else tally.recall + summed
        tally.rows += len(places)


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
