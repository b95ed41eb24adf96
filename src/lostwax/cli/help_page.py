"""How `--help` looks: a page of a terminal with what is used most; `--help-all` has everything.

Options of the panels Arguments and Parameters are the common ones. Those of any other panel are
named in a line on the short page, but for those of other servers, which are counted.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

LABEL_WIDTH = 24
FOREIGN = "Options of other servers"
"""The panel of options that say something again in the words of a command line from elsewhere."""
COMMON = ("Commands", "Arguments", "Parameters")
MAX_CHOICES_CHARS = 12
FLAGS = ("--help", "--help-all", "--version")
"""Options of every command; the page's first line says where they are."""


@dataclass(frozen=True, slots=True)
class HelpPage:
    """Satisfies `cyclopts.help.protocols.HelpFormatter`: plain text in two columns."""

    is_whole: bool

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel."""
        del options
        entries = [e for e in panel.entries if not set(e.positive_names) & set(FLAGS)]
        title, width = str(panel.title), console.width
        if not entries:
            return
        if title in COMMON or self.is_whole:
            _print(console, f"{title}:")
            lines = _whole_lines if self.is_whole else _short_lines
            for line in (line for entry in entries for line in lines(entry, width)):
                _print(console, line)
            return
        if title == FOREIGN:
            _print(console, f"{title}: {len(entries)}, which --help-all explains")
            return
        names = " ".join(name for e in entries for name in e.positive_names[:1])
        _print(console, _filled(f"{title}: {names}", width))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print how the command is called."""
        del options
        _print(console, f"Usage: {_text(usage).strip()}")

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """Print what the command does."""
        del options
        paragraphs = _text(description).split("\n\n")
        if not self.is_whole:
            paragraphs = [f"{paragraphs[0]} (--help-all says more)"]
        for paragraph in paragraphs:
            _print(console, textwrap.fill(" ".join(paragraph.split()), console.width))


def epilogue(examples: tuple[str, ...]) -> str:
    """The end of a command's page."""
    return "\n".join(["Examples:", *(f"  {example}" for example in examples)])


def _text(renderable: Any) -> str:
    """What rich would print, in one line a paragraph."""
    from rich.console import Console

    console = Console(width=1 << 16, no_color=True, file=StringIO())
    with console.capture() as captured:
        console.print(renderable or "", highlight=False, markup=False)
    return captured.get().rstrip()


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, subsequent_indent="  ", break_on_hyphens=False)


def _short_lines(entry: HelpEntry, width: int) -> Iterator[str]:
    """A line an option: as much of its first sentence as there is room for."""
    choices = "|".join(entry.choices or ())
    value = choices if 0 < len(choices) <= MAX_CHOICES_CHARS else entry.metavar
    text = re.split(r"(?<=[^.])\. ", _said(entry))[0].removesuffix(".")
    room = width - LABEL_WIDTH - 2
    if entry.default not in (None, "False", '""') and "default" not in text:
        shown = f" [{entry.default}]"
        text = textwrap.shorten(text, room - len(shown), placeholder="…") + shown
    text = textwrap.shorten(text, room, placeholder="…")
    yield from _beside(_label(entry, value), [re.sub(r"[,;:]? \([^)]*…", "…", text)])


def _whole_lines(entry: HelpEntry, width: int) -> Iterator[str]:
    """All that is known of an option."""
    text = _said(entry)
    if entry.choices and not all(choice in text for choice in entry.choices):
        text += f" [{', '.join(entry.choices)}]"
    if entry.default not in (None, "False", '""') and "default" not in text:
        text += f" [default: {entry.default}]"
    text += " [required]" if entry.required else ""
    label = _label(entry, entry.metavar, entry.negative_names)
    room = max(width - LABEL_WIDTH - 2, 20)
    yield from _beside(label, textwrap.wrap(text, room, break_on_hyphens=False))


def _beside(label: str, text: list[str]) -> Iterator[str]:
    """The label, with the text beside it where it leaves room, and below."""
    indent = " " * (LABEL_WIDTH + 2)
    if len(label) < LABEL_WIDTH and text:
        yield f"  {label:<{LABEL_WIDTH}}{text.pop(0)}".rstrip()
    else:
        yield f"  {label}"
    yield from (indent + line for line in text)


def _label(entry: HelpEntry, value: str | None, others: tuple[str, ...] = ()) -> str:
    if entry.positional_label:
        return entry.positional_label
    names = ", ".join((*entry.positive_shorts, *entry.positive_names, *others))
    return f"{names} {value}" if value else names


def _said(entry: HelpEntry) -> str:
    return " ".join(_text(entry.description).split())
