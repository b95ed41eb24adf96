"""Lines of reports at the width of the terminal, or 100 columns where there is none."""

from __future__ import annotations

import shutil
import sys
import textwrap

from lostwax.ir.contract.one_line import one_line

DEFAULT_WIDTH = 100
MAX_CHARS = 20_000
"""Of a line with all its continuations: the names of some hundred programs."""


def wrapped(line: str) -> str:
    """The line, clean, continued below itself where it is too long; words stay whole."""
    line = one_line(line, MAX_CHARS)
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    parts = textwrap.wrap(
        line,
        _width(),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return "\n".join(parts)


def _width() -> int:
    """A pipe gets the same lines whatever the terminal behind it is."""
    if not sys.stdout.isatty():
        return DEFAULT_WIDTH
    return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
