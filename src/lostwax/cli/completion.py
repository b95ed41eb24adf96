"""`lostwax completion`: what a shell loads to complete commands and options."""

from __future__ import annotations

from typing import Literal

from lostwax.backends.runtime.say import result_lines


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands and options in a shell.

    For this session of bash: source <(lostwax completion bash). For all, write it where the shell
    looks: bash ~/.local/share/bash-completion/completions/lostwax, zsh a file _lostwax in a folder
    of $fpath, fish ~/.config/fish/completions/lostwax.fish.

    Parameters
    ----------
    shell
        The shell that loads it.
    """
    from lostwax.cli.app import make_app

    result_lines(make_app().generate_completion(shell=shell))
