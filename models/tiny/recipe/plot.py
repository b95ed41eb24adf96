"""Draws a run's loss curves from its `log.json`. Needs matplotlib, which lostwax does not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def plot(log: Path, out: Path) -> None:
    """Losses over seconds of each stage, and the indexer's KL."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows: list[dict[str, Any]] = json.loads(log.read_text(encoding="utf-8"))["steps"]
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    figure, axes = pyplot.subplots(1, len(stages), figsize=(4 * len(stages), 3.5), squeeze=False)
    for axis, stage in zip(axes[0], stages, strict=True):
        chosen = [row for row in rows if row["stage"] == stage and row.get("done", 1) > 0]
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
