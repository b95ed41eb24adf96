"""Tuning records as prices. Reads the store, measures nothing."""

from __future__ import annotations

from pathlib import Path

from lostwax.backends.price import Measurements, NoMeasurements


def open_measurements(path: Path | None) -> Measurements:
    """Records at `path` (default: the shipped tier, which is empty as yet)."""
    if path is None:
        return NoMeasurements()
    raise NotImplementedError
