"""Draws a sweep as SVG: time to first token and throughput over concurrency, or over rate.

Knows the keys of a result and nothing else. The horizontal axis' values stand side by side, evenly:
sweeps double, and `inf` has a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 900, 340
PANEL = WIDTH / 2
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 50, 60
COLOURS = ("#1b6ca8", "#c8553d", "#3c7a3f", "#8a4fa3", "#a67c00", "#555555")
TICKS = 5
_TTFT = "time to first token, ms: p50, and p99 in dashes"
_LABELS = {"max_concurrency": "requests at once", "request_rate": "requests a second"}


@dataclass(frozen=True, slots=True)
class _Line:
    """A value for each place of the axis, None where nothing was measured; "" is in no legend."""

    name: str
    values: list[float | None]
    colour: str
    is_dashed: bool = False


def chart(results: Sequence[dict[str, Any]], title: str) -> str:
    """The sweep's picture: a line a rate over concurrencies, or a line over rates."""
    axis, other = "max_concurrency", "request_rate"
    if len({result[axis] for result in results}) == 1:
        axis, other = other, axis
    places = list(dict.fromkeys(result[axis] for result in results))
    groups = list(dict.fromkeys(result[other] for result in results))
    ttft: list[_Line] = []
    throughput: list[_Line] = []
    for number, group in enumerate(groups):
        found = {result[axis]: result for result in results if result[other] == group}
        colour = COLOURS[number % len(COLOURS)]
        name = "" if len(groups) == 1 else f"{_LABELS[other]}: {_named(group)}"
        ttft.append(_Line(name, _values(found, places, "p50_ttft_ms"), colour))
        ttft.append(_Line("", _values(found, places, "p99_ttft_ms"), colour, is_dashed=True))
        throughput.append(_Line(name, _values(found, places, "output_throughput"), colour))
    labels = [_named(place) for place in places]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            f' width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            _text(WIDTH / 2, 18, title, "middle"),
            *_panel(0, _TTFT, _LABELS[axis], labels, ttft),
            *_panel(PANEL, "output tokens a second", _LABELS[axis], labels, throughput),
            "</svg>\n",
        ]
    )


def _values(
    found: dict[Any, dict[str, Any]], places: Sequence[Any], key: str
) -> list[float | None]:
    return [found[place][key] if place in found else None for place in places]


def _named(place: float | str | None) -> str:
    return "any" if place is None else place if isinstance(place, str) else f"{place:g}"


def _panel(
    x: float, title: str, axis: str, labels: Sequence[str], lines: Sequence[_Line]
) -> Iterator[str]:
    """One set of axes, at `x`, with its lines and their legend."""
    top = max((v for line in lines for v in line.values if v is not None), default=0.0) or 1.0
    low, high, right = HEIGHT - BOTTOM, TOP, x + PANEL - RIGHT
    yield _text(x + PANEL / 2, 38, title, "middle")
    for tick in range(TICKS + 1):
        y = low - (low - high) * tick / TICKS
        yield f'<path d="M{x + LEFT:.1f} {y:.1f}H{right:.1f}" stroke="#dddddd"/>'
        yield _text(x + LEFT - 6, y + 4, f"{top * tick / TICKS:.4g}", "end")
    at = [x + LEFT + (right - x - LEFT) * (n + 0.5) / len(labels) for n in range(len(labels))]
    for place, label in zip(at, labels, strict=True):
        yield _text(place, low + 16, label, "middle")
    yield _text(x + (LEFT + PANEL) / 2, low + 34, axis, "middle")
    for line in lines:
        points = [
            (place, low - (low - high) * value / top)
            for place, value in zip(at, line.values, strict=True)
            if value is not None
        ]
        yield from _drawn(points, line)
    for number, line in enumerate(line for line in lines if line.name):
        yield _text(x + LEFT + 8, high + 14 + 14 * number, line.name, "start", line.colour)


def _drawn(points: Sequence[tuple[float, float]], line: _Line) -> Iterator[str]:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if line.is_dashed else ""
    yield f'<polyline points="{joined}" fill="none" stroke="{line.colour}"{dashes}/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222222") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
