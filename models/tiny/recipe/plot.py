"""Draws a run's loss curves from its `log.json`. Needs matplotlib, which lostwax does not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

STAGES = ("dense", "warm", "sparse")


def plot(log: Path, out: Path) -> None:
    """Losses over seconds of each stage, and the indexer's KL."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows: list[dict[str, Any]] = json.loads(log.read_text(encoding="utf-8"))["steps"]
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.5))
    for axis, stage in zip(axes, STAGES, strict=True):
        chosen = [row for row in rows if row["stage"] == stage and row["done"] > 0]
        for column in ("written", "mtp", "kl"):
            points = [(row["seconds"], row[column]) for row in chosen if column in row]
            if points:
                axis.plot(*zip(*points, strict=True), label=column, linewidth=0.8)
        axis.set(title=stage, xlabel="seconds after compilation", yscale="log")
        axis.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    plot(args.log, args.out)


if __name__ == "__main__":
    main()
