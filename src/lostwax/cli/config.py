"""`lostwax config`: what `serve` would be told by a command line and its file. Starts nothing."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from cyclopts import App, Parameter

from lostwax.backends.runtime.say import result
from lostwax.cli.config_file import named_file
from lostwax.cli.decided import Decided
from lostwax.cli.option_types import Flag, OptionRefused

HIDDEN = ("api-key",)
"""Nobody needs to see them to know where they come from."""


def config(
    action: Literal["show"],
    /,
    *options: Annotated[str, Parameter(allow_leading_hyphen=True)],
    origin: Flag = False,
) -> None:
    """Show the options of `serve` as a file for its --config would say them.

    Parameters
    ----------
    action
        show prints every option; those without a value are comments. Those of other servers are
        printed where they are given.
    options
        A command line of `serve`, with its --config FILE.
    origin
        Say behind each where it comes from: the command line, the file, or the default.
    """
    from lostwax.cli.app import take_config

    del action  # there is one
    line = ["serve", *options]
    told, command = _parsed(line)
    app = _app()
    take_config(app, line)
    both, _ = _parsed(line, app)
    result("[serve]")
    told, both = _flat(told), _flat(both)
    parameters = inspect.signature(command).parameters
    for name, value in (_flat({n: p.default for n, p in parameters.items()}) | both).items():
        if name == "config":
            continue
        source = "default"
        if name in both:
            source = "command line" if name in told else str(named_file(line))
        shown = _shown(name.replace("_", "-"), value)
        result(f"{shown} # {source}" if origin else shown)


def _app() -> App:
    from lostwax.cli.app import make_app

    return make_app()


def _parsed(line: list[str], app: App | None = None) -> tuple[dict[str, Any], Any]:
    """The values that are given, by name, and whose they are."""
    command, bound, *_ = (app or _app()).parse_args(line, print_error=False, exit_on_error=False)
    if command.__name__ != "serve":
        raise OptionRefused("config shows a command line of serve; leave out --help and --version")
    return dict(bound.arguments), command


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """The options by name, where those of other servers are one value; of these, what was given."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Decided):
            given = {each.name: getattr(value, each.name) for each in fields(value)}
            found |= {n: v for n, v in given.items() if v not in (None, False)}
        else:
            found[name] = value
    return found


def _shown(name: str, value: Any) -> str:
    if value is None:
        return f"# {name} has no value"
    if name == "path":
        return f"# PATH is {value}"
    if name in HIDDEN:
        return f"# {name} is set and not shown"
    return f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, cast('list[Any]', value)))}]"
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)
    return json.dumps(value)
