"""The cyclopts app: commands by name, and errors as one sentence. Does no work itself."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from cyclopts import App

import lostwax

app = App(
    name="lostwax",
    help="Compile DeepSeek-V3.2 once per target, serve it by replay.",
    version=lostwax.__version__,
)
COMMANDS = {
    "certify": "An artifact's lowerings on this device, beside the fp64 reference.",
    "compile": "Compile a checkpoint into an artifact for one target.",
    "doctor": "What each target needs on this machine to compile and run, and what is lacking.",
    "eval": "What a model answers to tasks, graded.",
    "explain": "What an artifact's compile chose for each op, what lost and why.",
    "export": "Write a graph of an artifact, with its weights, as an ONNX model.",
    "new-checkpoint": "Write a random checkpoint in the official format.",
    "opt": "Run passes over a module's text.",
    "plan": "The memory of each rank, before anything is booted.",
    "run": "Chat with a model in the terminal.",
    "serve": "Serve an artifact, a checkpoint or the model that comes with lostwax, over HTTP.",
    "verify": "Check every file of an artifact, and that its checkpoint is the one compiled.",
}
"""Said here too, so that `lostwax --help` imports no command."""
for _command, _help in COMMANDS.items():
    _module = _command.replace("-", "_")
    app.command(f"lostwax.cli.{_module}:{_module}", name=_command, help=_help)


def _is_ours(error: Exception) -> bool:
    """Errors that this project raises on purpose say what to do; others keep their traceback."""
    return type(error).__module__.startswith("lostwax.") or isinstance(error, OSError)


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
    try:
        given = sys.argv[1:] if arguments is None else arguments
        app(given, result_action="return_value")  # the default exits before the flush
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `lostwax explain ART | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if not _is_ours(error):
            raise
        print(f"lostwax: {error}", file=sys.stderr)
        sys.exit(1)
