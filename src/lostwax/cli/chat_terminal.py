"""A conversation in the terminal: lines in, answers out as they come. Knows no HTTP.

Ctrl-C stops an answer, Ctrl-D leaves. Reasoning is shown dim and apart.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.text import Text

from lostwax.backends.runtime.say import MAX_LINE, MAX_NAME, many_lines, say
from lostwax.cli.chat_client import ChatError, Delta
from lostwax.cli.conversation import Conversation
from lostwax.ir.contract.one_line import one_line

PROMPT = "> "
HELP = """\
/thinking on|off   reason before answering
/clear             forget the conversation
/help              show this
/exit              leave, as Ctrl-D does
Ctrl-C             stop the answer"""


class Terminal:
    """Reads lines and shows answers; `out` is where the terminal is."""

    def __init__(self, conversation: Conversation, out: TextIO) -> None:
        self._conversation = conversation
        self._console = Console(file=out, highlight=False, soft_wrap=True)
        self._was = ""

    def run(self) -> None:
        """Talk until the user leaves."""
        with suppress(ImportError):  # without it lines are read all the same
            import readline  # pyright: ignore[reportUnusedImport]  # noqa: F401  # input() edits
        while True:
            try:
                if not self._turn(self._typed()):
                    return
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                self._note("\nCtrl-D or /exit leaves")

    def _typed(self) -> str:
        """A line; nothing where what was typed is no text."""
        try:
            line = input(PROMPT)
            line.encode()  # in some locales other bytes come as halves of surrogate pairs
        except UnicodeError:
            self._note("that is no text in UTF-8")
            return ""
        return line

    def _turn(self, line: str) -> bool:
        """One line of the user's; False ends the conversation."""
        line = line.strip()
        if line.startswith("/"):
            return self._command(line)
        if line:
            self._answer(line)
        return True

    def _answer(self, line: str) -> None:
        self._was = ""
        try:
            finish = self._conversation.say(line, self._show)
        except KeyboardInterrupt:
            self._note("\nstopped")
            return
        except ChatError as error:
            if self._was:
                self._console.print()
            self._console.print(Text(f"error: {one_line(error, MAX_LINE)}", style="red"))
            return
        self._console.print()
        if finish == "length":
            self._note("the answer is cut off: it reached the limit of tokens")

    def _show(self, delta: Delta) -> None:
        for kind, text in (("reasoning", delta.reasoning), ("content", delta.content)):
            if not text:
                continue
            if self._was not in ("", kind):
                self._console.print("\n")
            self._was = kind
            style = "dim" if kind == "reasoning" else ""
            self._console.print(Text(many_lines(text), style=style), end="")

    def _command(self, line: str) -> bool:
        match line.split():
            case ["/exit"] | ["/quit"]:
                return False
            case ["/clear"]:
                self._conversation.clear()
                self._note("the conversation is forgotten")
            case ["/thinking", "on" | "off" as state]:
                self._conversation.thinking = state == "on"
                self._note(f"thinking is {state}")
            case ["/help"]:
                self._note(HELP)
            case _:
                self._note(f"{one_line(line, MAX_NAME)} is no command\n{HELP}")
        return True

    def _note(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))


class Plain:
    """Answers as plain text for programs: no reasoning, no colours, nothing else on `out`."""

    def __init__(self, conversation: Conversation, out: TextIO) -> None:
        self._conversation = conversation
        self._out = out
        self._is_empty = True

    def run(self, prompts: list[str]) -> None:
        """Ask each, one conversation. Raises ChatError."""
        for prompt in prompts:
            self._is_empty = True
            finish = self._conversation.say(prompt, self._show)
            self._out.write("\n")
            self._out.flush()
            if finish == "length":
                say("the answer is cut off: it reached the limit of tokens")
            elif self._is_empty:
                say("there is no answer, at most reasoning")

    def _show(self, delta: Delta) -> None:
        self._is_empty = self._is_empty and not delta.content
        self._out.write(many_lines(delta.content))  # `out` may be a terminal
        self._out.flush()
