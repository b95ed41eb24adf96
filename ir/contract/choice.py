"""What `explain` prints: every choice of a compile with its losers. Data only."""

from __future__ import annotations

import msgspec


class Loser(msgspec.Struct, frozen=True, kw_only=True):
    """A lowering that was not chosen at a site: `reason` why, `us` its price where it had one.

    `portable`: any target has it.
    """

    lowering: str
    reason: str
    us: float | None = None
    portable: bool = False


class RegionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The lowering of one region of one block kind in one program.

    `us` is microseconds, from a `record` or an `estimate` (`source`); `estimate_us` is the estimate
    in either case. Of both `prepared_us` are the region's share of what a step prepares once for
    all. `region` is the region's digest, under which records are filed. `probe` is the id under
    which `probes.json` and `certificates.json` have it, empty where nothing is certified.
    `portable`: any target has it: nothing of this target's own was cheaper, or fit.
    """

    block: str
    ops: tuple[str, ...]
    region: str
    lowering: str
    us: float
    source: str
    knobs: dict[str, int]
    estimate_us: float = 0.0
    prepared_us: float = 0.0
    probe: str = ""
    losers: tuple[Loser, ...]
    portable: bool = False
    site: tuple[int, ...] = ()
    """Where its ops stand in the block's function, counted from 0."""


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `choices.json`. `storage` gives the stored weights by group, `storage_losses` the
    mean loss of each other way to store them (1.0: programs twice as slow). `activations`: which
    ones nobody asked for, and why; empty where somebody did or where they are the model's."""

    programs: dict[str, tuple[RegionChoice, ...]]
    storage: dict[str, tuple[str, ...]]
    storage_losses: dict[str, dict[str, float]]
    activations: str = ""
