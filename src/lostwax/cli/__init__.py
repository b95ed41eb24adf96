"""The command line: one file a command. The only place that reads the environment."""

from lostwax.cli.app import main

__all__ = ["main"]
