"""Reads the command that starts SGLang's or vLLM's server, as text. Runs and expands nothing.

Text is split as a POSIX shell splits words. What only a shell could say (pipes, substitutions,
several commands) is refused; `$NAME` stays as it stands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

MAX_CHARS = 1 << 16
Server = Literal["SGLang", "vLLM"]
_MODULES: Mapping[str, Server] = {
    "sglang.launch_server": "SGLang",
    "vllm.entrypoints.openai.api_server": "vLLM",
}
_PROGRAMS: Mapping[str, Server] = {"sglang": "SGLang", "vllm": "vLLM"}
"""Those whose word `serve` starts a server."""
_ROUTERS = ("sglang_router.launch_router", "sglang_router.launch_server")
_STARTERS = re.compile(r"(?:\S*/)?python[\d.]*|-u|-m|env|exec|nohup|export")
"""Words before a server's own that mean nothing elsewhere."""
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.S | re.ASCII)
_SHORT = {
    "-tp": "--tp",
    "-dp": "--dp",
    "-ep": "--enable-expert-parallel",
    "-pp": "--pipeline-parallel-size",
    "-q": "--quantization",
}
"""vLLM's names of one dash."""


class CommandRefused(ValueError):
    """The text is no single command that starts one of these servers; the message says why."""


@dataclass(frozen=True, slots=True)
class ForeignCommand:
    """A server's command: the words behind its launcher, and what stood before it."""

    server: Server
    environment: Mapping[str, str]
    before: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """An option with its values as they were given, or a word that is none (no name)."""

    name: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.name, *self.values)).strip()

    @property
    def value(self) -> str:
        """All its values as one text."""
        return " ".join(self.values)


def read_command(text: str) -> ForeignCommand:
    """Raises CommandRefused."""
    if len(text) > MAX_CHARS:
        raise CommandRefused(
            f"the command has {len(text)} characters and at most {MAX_CHARS} may be"
        )
    words = _words(text)
    for index, word in enumerate(words):
        if word in _ROUTERS:
            raise CommandRefused(
                f"{word} spreads requests over several servers, which has no counterpart: one"
                " lostwax server has one engine; migrate the servers' own commands"
            )
        if word in _MODULES and index and words[index - 1] == "-m":
            return _command(_MODULES[word], words[:index], words[index + 1 :])
        program = word.rpartition("/")[2]
        if program in _PROGRAMS and words[index + 1 : index + 2] == ["serve"]:
            return _command(_PROGRAMS[program], words[:index], words[index + 2 :])
    raise CommandRefused(
        "the text starts no server that is known here; give a command like"
        " 'python -m sglang.launch_server --model-path …' or 'vllm serve …'"
    )


def _words(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    bare = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = bare.replace("\\\n", "").rstrip().removesuffix("\\")  # a last line that goes on
    split = shlex.shlex(joined, posix=True, punctuation_chars=True)
    split.commenters = ""
    split.whitespace_split = True
    try:
        found = list(split)
    except ValueError as error:
        raise CommandRefused(f"a shell could not read this: {str(error).lower()}") from error
    for word in found:
        if "`" in word or (word and not set(word) - set("();<>|&")):
            raise CommandRefused(
                f"the text holds {word!r}, which is the shell's; give the server's command alone"
            )
    return [word for word in found if word.strip()]


def _command(server: Server, before: Sequence[str], words: Sequence[str]) -> ForeignCommand:
    environment: dict[str, str] = {}
    others: list[str] = []
    for word in before:
        assigned = _ASSIGNMENT.fullmatch(word)
        if assigned:
            environment[assigned[1]] = assigned[2]
        elif not _STARTERS.fullmatch(word):
            others.append(word)
    return ForeignCommand(server, environment, tuple(others), tuple(words))


def options_of(command: ForeignCommand, takes: Mapping[str, int]) -> Iterator[Given]:
    """The options with their values; `takes` says how many those have whose names are known, the
    others have all words up to the next option."""
    words = list(command.words)
    while words:
        word = words.pop(0)
        if not _is_option(word):
            yield Given("", (word,))
            continue
        name, equals, value = word.partition("=")
        name = one_name(name)
        count = takes.get(name, len(words))
        values = [value] if equals else []
        while words and len(values) < count and not equals and not _is_option(words[0]):
            values.append(words.pop(0))
        yield Given(name, tuple(values))


def _is_option(word: str) -> bool:
    """A negative number is a value."""
    return re.match(r"--?[A-Za-z]", word) is not None


def one_name(word: str) -> str:
    """An option's one name: vLLM takes underscores for dashes, and has names of one dash."""
    first, dot, key = word.partition(".")
    return _SHORT.get(first, first.replace("_", "-")) + dot + key
