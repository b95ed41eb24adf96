"""What was asked of a compile, checked against model and target before anything is captured.

Imports neither torch nor xdsl, so that a refusal takes no longer than reading the headers.
"""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.plan.sizes import Sizes, limits_of
from lostwax.ir.contract.artifact import Limits
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.target import Target


class UnsupportedDtype(ValueError):
    """The target cannot compute in the dtype that was asked for."""


class NoDrafts(ValueError):
    """Drafts are asked for, but the model has nothing that makes them."""


class UnsupportedRanks(ValueError):
    """The target cannot run an artifact of several ranks."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The part of a compile's options that model and target alone can refuse."""

    dtype: str
    sizes: Sizes
    tp: int = 1


def require_possible(asked: Asked, facts: ModelFacts, target: Target, *, has_mtp: bool) -> Limits:
    """The artifact's limits. Raises UnsupportedDtype, UnsupportedRanks, SizeError, NoDrafts."""
    if asked.dtype not in target.dtypes:
        raise UnsupportedDtype(
            f"target {target.name} has no {asked.dtype}; it has {', '.join(target.dtypes)}"
        )
    require_ranks(asked.tp, target)
    limits = limits_of(facts, asked.sizes)
    if limits.max_drafts and not has_mtp:
        raise NoDrafts(
            f"--drafts {limits.max_drafts} needs a checkpoint with one MTP layer"
            " (num_nextn_predict_layers 1 and its tensors); this one has none: leave --drafts out"
        )
    return limits


def require_ranks(tp: int, target: Target) -> None:
    """Raise UnsupportedRanks where the target cannot run so many."""
    if tp < 1:
        raise UnsupportedRanks(f"--tp {tp}: there is at least one rank")
    if tp > 1 and target.replay == "graph":
        raise UnsupportedRanks(
            f"--tp {tp}: target {target.name} replays captured graphs, in which ranks cannot"
            " exchange values yet; leave --tp out, or compile for a target that walks its"
            " launches, such as cpu"
        )
