"""Ways to lose or mix up what lies in host memory: each must die in the machine of any traffic.

A mutant overrides a method of the tier; never the product's source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from unittest.mock import patch

import pytest
from host_machine import HostMachine
from hypothesis.stateful import run_state_machine_as_test
from late_runtime import LateRuntime
from mutant_search import SEARCH

from lostwax.ir.contract.step_plan import Move
from lostwax.server.engine.host_tier import HostTier
from lostwax.server.engine.loop import EngineBroken, EngineCore


class _Tier(HostTier):
    """Its own books must not be what notices."""

    def check_integrity(self) -> None:
        """Nothing."""


class KeepsTheKeyOfASlotThatIsUsedAgain(_Tier):
    """What is found in a slot is what lay there before."""

    def forget(self, key: bytes) -> None:
        copy = self._copies.get(key)
        super().forget(key)
        if copy is not None:
            self._copies[key] = copy


class SavesOnceThePageIsWritten(_Tier):
    """A save waits although its page has a new owner who writes."""

    def take_moves(self, written: Iterable[int]) -> tuple[Move, ...]:
        return super().take_moves(())


class RestoresFirst(_Tier):
    """A page comes back into one that was not saved, or from a slot that was not written."""

    def take_moves(self, written: Iterable[int]) -> tuple[Move, ...]:
        return tuple(sorted(super().take_moves(written), key=lambda move: not move.is_restore))


class RestoresOverWhatIsUnsaved(_Tier):
    """A page's old content is not saved before another comes back into it."""

    def restore(self, keys: Sequence[bytes], pages: Sequence[int]) -> None:
        waiting = {page: self._unsaved.pop(page) for page in pages if page in self._unsaved}
        super().restore(keys, pages)
        self._unsaved |= waiting


class FindsWhatTheMtpLayerLacks(_Tier):
    """Who drafts takes pages that the MTP layer has not written."""

    def has(self, key: bytes, *, with_drafts: bool) -> bool:
        return super().has(key, with_drafts=False)


class TakesBackWhatFailed(_Tier):
    """What was copied with a step that failed is found."""

    def clear(self) -> None:
        """Nothing."""


TIERS = (
    KeepsTheKeyOfASlotThatIsUsedAgain,
    SavesOnceThePageIsWritten,
    RestoresFirst,
    RestoresOverWhatIsUnsaved,
    FindsWhatTheMtpLayerLacks,
    TakesBackWhatFailed,
)
NOTICED = (AssertionError, EngineBroken, ValueError, KeyError)


def _search(tier: type[HostTier]) -> None:
    class Machine(HostMachine):
        def make_core(self, runtime: LateRuntime, depth: int) -> EngineCore:
            with patch("lostwax.server.engine.request_pages.HostTier", tier):
                return super().make_core(runtime, depth)

    run_state_machine_as_test(Machine, settings=SEARCH)


@pytest.mark.slow
@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.__name__)
def test_a_wrong_tier_is_noticed(tier: type[HostTier]) -> None:
    with pytest.raises(NOTICED):
        _search(tier)
