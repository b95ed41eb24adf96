"""Keeps account of another server's options while they are said in ours: none gets lost.

Knows what options `serve` has and what values they take, not what any of them means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from lostwax.cli.foreign_command import ForeignCommand, Given, Server, options_of
from lostwax.cli.option_types import OptionRefused


@dataclass(frozen=True, slots=True)
class Reason:
    """An option, a variable or a word, with what there is to say of it."""

    option: str
    why: str


@dataclass(slots=True)
class Migration:
    """Our commands as words, and what became of theirs."""

    server: Server
    target: str
    commands: list[list[str]] = field(default_factory=list[list[str]])
    left_out: list[Reason] = field(default_factory=list[Reason])
    needless: list[Reason] = field(default_factory=list[Reason])
    added: list[Reason] = field(default_factory=list[Reason])
    notes: list[str] = field(default_factory=list[str])


class Translation:
    """One command on its way. `given` holds the options that nothing was said of yet, by the first
    of their names; `compile` and `serve` are the words of our commands so far."""

    def __init__(
        self,
        command: ForeignCommand,
        target: str,
        arguments: Sequence[Any],
        values: Mapping[str, int],
    ) -> None:
        """`arguments` are those of `serve` as cyclopts knows them, `values` says how many values
        other options have."""
        self.known = {name: argument for argument in arguments for name in argument.names}
        self.given: dict[str, Given] = {}
        self.words: list[str] = []
        self.compile: list[str] = []
        self.serve: list[str] = []
        self.result = Migration(command.server, target)
        counts = {name: 0 if each.hint is bool else 1 for name, each in self.known.items()}
        for each in options_of(command, counts | dict(values)):
            if each.name:
                name = self.known[each.name].name if each.name in self.known else each.name
                self.given[name] = each  # the last counts, as it does there
            else:
                self.words.append(each.value)

    def left(self, option: object, why: str) -> None:
        """It has no counterpart."""
        self.result.left_out.append(Reason(str(option), why.removeprefix(f"{option}: ")))

    def needless(self, option: object, why: str) -> None:
        """It is so without."""
        self.result.needless.append(Reason(str(option), why.removesuffix(": leave it out")))

    def say(self, words: list[str], *said: str, because: str = "") -> None:
        """Add to a command of ours; `because` where nobody asked for it."""
        words += said
        if because:
            self.result.added.append(Reason(" ".join(said), because))

    def taken(self, name: str, say: Callable[[Given], None]) -> bool:
        """Whether the option is given; what is refused of it is left out with the reason."""
        found = self.given.pop(name, None)
        if found is None:
            return False
        try:
            self._check(name, found)
            say(found)
        except (OptionRefused, ValueError) as error:
            self.left(found, str(error))
        return True

    def passed(self, name: str) -> bool:
        """Whether an option is given that `serve` has, which then gets it as it is."""
        return self.taken(name, lambda given: self.say(self.serve, name, *given.values))

    def _check(self, name: str, found: Given) -> None:
        """ValueError where `serve` would not take the value. `$NAME` may be any."""
        argument = self.known.get(name)
        if argument is None or "$" in found.value:
            return
        hint = argument.hint
        if hint is bool:
            if found.values:
                raise ValueError("it takes no value")
            return
        if not found.values:
            raise ValueError("its value is missing")
        if get_origin(hint) is Literal:
            if found.value not in get_args(hint):
                raise ValueError(f"must be one of {', '.join(get_args(hint))}")
            return
        kinds = set(get_args(hint)) or {hint}
        value: Any = found.value
        if kinds & {int, float}:
            value = number(found, int if int in kinds else float)
        if kinds & {int, float, str}:  # a path is looked at by the command itself
            for validator in argument.parameter.validator:
                validator(hint, value)


def number(given: Given, kind: type[int] | type[float] = int) -> Any:
    """An option's value. Raises ValueError."""
    try:
        return kind(given.value)
    except ValueError:
        raise ValueError(f"{given.value!r} is no number") from None


def value_of(words: Sequence[str], option: str) -> str:
    """What an option of ours is, empty where it was not said."""
    return words[words.index(option) + 1] if option in words else ""
