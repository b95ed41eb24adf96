"""One stored weight as a torch tensor: for compiles and benchmarks, which hold few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from lostwax.backends.runtime.form_weight import Read, form_into
from lostwax.backends.runtime.load_weights import Sources, naming
from lostwax.backends.runtime.tensors import TORCH_DTYPES
from lostwax.backends.runtime.torch_numbers import TorchNumbers
from lostwax.backends.runtime.torch_weights import TorchWeights
from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.weights import Source, StoredWeight


def form(
    stored: StoredWeight,
    parts: Sequence[Sequence[Read]],
    rank: Rank = ALONE,
    device: torch.device | None = None,
) -> torch.Tensor:
    """The stored weight, of readers of each part's sources in stacking order.

    Raises Inconsistent for a plan that does not fit, and for a source that is not what it says.
    """
    out = torch.zeros(stored.shape, dtype=TORCH_DTYPES[stored.dtype], device=device)
    form_into(out, stored, parts, rank, copy_piece, TorchNumbers())
    return out


def copy_piece(place: torch.Tensor, piece: torch.Tensor) -> None:
    """Puts a piece where memory and sources are on one device."""
    place.copy_(piece)


def form_sources(
    checkpoint: Path, wanted: Iterable[tuple[StoredWeight, Source]]
) -> Iterator[torch.Tensor]:
    """One stored weight of one source after the other, in host memory; none is kept."""
    with torch.no_grad():
        sources = Sources(checkpoint, TorchWeights(copy_piece))
        for stored, source in wanted:
            with naming(stored.name):
                yield form(stored, sources.readers(stored, [(source,)]))
