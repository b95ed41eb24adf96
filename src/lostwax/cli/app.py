"""The cyclopts app: commands by name, and errors as one sentence. Does no work itself."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnknownOptionError, ValidationError

import lostwax
from lostwax.backends.runtime.error_sentence import sentence_of
from lostwax.backends.runtime.say import say
from lostwax.cli.commands import COMMANDS, GROUPS, named
from lostwax.cli.config_file import named_file, read_config
from lostwax.cli.foreign_options import hint
from lostwax.cli.help_page import HelpPage, epilogue

HELP_ALL = "--help-all"


def make_app(whole: str | None = None) -> App:
    """The commands, none of which is imported before it is called.

    `whole` names the command whose help page says everything ("" is lostwax itself).
    """
    app = App(
        name="lostwax",
        help="Compile DeepSeek-V3.2 once per target, serve it by replay.",
        version=lostwax.__version__,
        help_format="plaintext",
        help_formatter=HelpPage(is_whole=whole is not None),
    )
    groups = {name: App(name=name, help=purpose) for name, purpose in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for name, command in COMMANDS.items():
        module = re.sub("[- ]", "_", name)
        *group, last = name.split()
        (groups[group[0]] if group else app).command(
            f"lostwax.cli.{module}:{module}",
            name=last,
            help=None if name == whole else command.purpose,  # None: as its docstring says
            help_epilogue=epilogue(command.examples),
        )
    return app


def take_config(app: App, given: Sequence[str]) -> None:
    """Let the file that a command line names, if any, stand in for the options that it leaves out.

    Raises OptionRefused where the file does not do.
    """
    path = named_file(given)
    if path is not None:
        options = app[given[0]].assemble_argument_collection()
        known = {each.name[2:]: each.hint for each in options if each.name.startswith("--")}
        app.config = (read_config(path, known),)


def _wait_asleep() -> None:
    """Threads that spin while they wait hold the cores that the awaited ones need.

    Beside other work on two cores a decode step of the tiny model took 30 to 500 ms, and 7 ms with
    threads that sleep; its golden probes, small products of numpy's, 16 s, and 1.2 s with one
    thread. The libraries are told this way only, before they load; processes that we start are
    told, too.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (default: this process's)."""
    _wait_asleep()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `lostwax explain ART | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except CycloptsError as error:
        say(f"lostwax: {_sentence(error, given)}")
        sys.exit(1 if isinstance(error, ValidationError) else 2)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        say(f"lostwax: {sentence}")
        sys.exit(1)


def _run(given: list[str]) -> None:
    whole = (named(given) or "") if HELP_ALL in given else None
    app = make_app(whole)
    if whole is None and "--help" not in given:
        take_config(app, given)
    # The defaults print a panel and exit before the flush.
    app(
        ["--help" if word == HELP_ALL else word for word in given],
        print_error=False,
        exit_on_error=False,
        result_action="return_value",
    )


def _sentence(error: CycloptsError, given: list[str]) -> str:
    """What is wrong with the command line, in one line."""
    argument = error.argument
    if isinstance(error, ValidationError) and argument is not None:
        keywords = [token.keyword for token in argument.tokens if token.keyword]
        files = [f"{t.source}: " for t in argument.tokens if t.source != "cli"]
        name = keywords[0] if keywords and not files else argument.name
        return f"{files[0] if files else ''}{name} {error.exception_message}"
    if isinstance(error, UnknownOptionError) and (
        found := _hint(error.token.keyword or error.token.value, named(given))
    ):
        return found
    return " ".join(str(error).split())


def _hint(option: str, command: str | None) -> str | None:
    app = make_app()
    own = names_of(app, command.split()) if command else frozenset[str]()
    return hint(option, command, own, names_of(app, ["serve"]))


def names_of(app: App, command: Sequence[str]) -> frozenset[str]:
    """The names of a command's options."""
    for word in command:
        app = app[word]
    found = (name for each in app.assemble_argument_collection() for name in each.names)
    return frozenset(name for name in found if name.startswith("-"))
