"""Fills what a probe's inputs leave undefined with NaN: rows without a token, unwritten tokens."""

from __future__ import annotations

from lostwax.backends.runtime.memory import Buffer, Table
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.probe import Drawn, DrawnCache, Given, Kept

_FNUZ_NAN = 0x80
"""The only NaN of f8E4M3FNUZ. In every other element type bytes of 0xFF are one."""


def fill_undefined(given: Given, buffer: Buffer) -> None:
    """Overwrite what `Given.real` and `Given.held` leave open, in the buffer of its bytes."""
    data = given.data
    fnuz = isinstance(data, Drawn | Kept) and data.dtype == "f8E4M3FNUZ"
    nan = _FNUZ_NAN if fnuz else 0xFF
    if given.real is not None:
        assert not isinstance(data, DrawnCache)  # `check_probes`
        buffer.reshape(data.shape[0], -1)[given.real :] = nan
    for page, tokens in _pages(given, buffer):
        for part in tokens:
            part[given.held[page] :] = nan


def _pages(given: Given, buffer: Buffer) -> list[tuple[int, list[Table]]]:
    """Of each page that is not full: its tokens' bytes, [tokens, bytes], part by part."""
    if not given.held:
        return []
    data = given.data
    tokens = data.page_tokens if isinstance(data, DrawnCache) else data.shape[1]
    regions = _regions(given, buffer)
    return [
        (page, [region[page].reshape(tokens, -1) for region in regions])
        for page, held in enumerate(given.held)
        if held < tokens
    ]


def _regions(given: Given, buffer: Buffer) -> list[Table]:
    """[pages, bytes] each: a page's tokens, or what lies apart of them."""
    data, count = given.data, len(given.held)
    pages = buffer.reshape(count, -1)
    if not isinstance(data, DrawnCache):
        return [pages]
    form = LAYOUTS[data.layout]
    if form.parts_apart:
        rows, start, parts = count * data.page_tokens, 0, list[Table]()
        for width in form.part_bytes(data.row):
            parts.append(buffer[start : start + rows * width].reshape(count, -1))
            start += rows * width
        return parts
    if form.is_paged:
        values = data.page_tokens * data.row[0]
        return [pages[:, :values], pages[:, values:]]
    return [pages]
