"""The command line: one file a command. The only place that reads the environment.

But for the few variables that compilers need to start: `backends/fixed_environment.py`.
"""

from lostwax.cli.app import main

__all__ = ["main"]
