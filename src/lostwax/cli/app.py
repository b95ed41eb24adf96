"""The cyclopts app: commands by name, and errors as one sentence. Does no work itself."""

from __future__ import annotations

import sys

from cyclopts import App

import lostwax

app = App(
    name="lostwax",
    help="Compile DeepSeek-V3.2 once per target, serve it by replay.",
    version=lostwax.__version__,
)
for _command in ("certify", "compile", "explain", "new-checkpoint", "opt", "serve"):
    _module = _command.replace("-", "_")
    app.command(f"lostwax.cli.{_module}:{_module}", name=_command)


def _is_ours(error: Exception) -> bool:
    """Errors that this project raises on purpose say what to do; others keep their traceback."""
    return type(error).__module__.startswith("lostwax.") or isinstance(error, OSError)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not _is_ours(error):
            raise
        print(f"lostwax: {error}", file=sys.stderr)
        sys.exit(1)
