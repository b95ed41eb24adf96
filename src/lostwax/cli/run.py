"""`lostwax run`: chat in the terminal, or one answer for a script."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lostwax.backends.runtime.say import MAX_NAME, result
from lostwax.cli.named_paths import File, Model, OutFolder
from lostwax.cli.option_types import MORE, Count, Name, Temperature, TopP, Url
from lostwax.ir.contract.one_line import one_line

if TYPE_CHECKING:
    from lostwax.cli.chat_client import ChatClient

MAX_PROMPT_CHARS = 4 << 20
"""More than any context holds."""


class NothingToAsk(ValueError):
    """No prompt, or no server, was given; the message says how to give one."""


def run(
    path: Model | None = None,
    /,
    *,
    url: Url | None = None,
    model: Name | None = None,
    system: str | None = None,
    prompt: Annotated[list[str] | None, Parameter(negative=())] = None,
    thinking: bool | None = None,
    max_tokens: Count | None = None,
    temperature: Temperature | None = None,
    top_p: TopP | None = None,
    api_key_file: Annotated[File | None, MORE] = None,
    cache: Annotated[OutFolder | None, MORE] = None,
) -> None:
    """Chat with a model in the terminal.

    Ctrl-C stops an answer, Ctrl-D leaves. With --prompt, or where standard input is no terminal
    (then it is the prompt), the answer alone is printed, as plain text.

    Parameters
    ----------
    path
        The folder of an artifact or of a checkpoint. It is served for as long as this runs.
        Default: the small trained model that comes with lostwax.
    url
        Ask this OpenAI-compatible server instead.
    model
        The model to ask there (default: the first that it lists).
    api_key_file
        A file with the key of that server.
    system
        A system message.
    prompt
        Ask this, print the answer and end. Several are turns of one conversation.
    thinking
        Reason before answering (default: as the server does).
    max_tokens
        Longest answer in tokens (default: as the server does).
    temperature
        0 picks the likeliest token, 1 draws by probability (default: as the server does; 0 for the
        model that comes with lostwax, which is too small to be drawn from).
    top_p
        Draw from the likeliest tokens that have this share (default: as the server does; 1 draws
        from all).
    cache
        Where the default model's artifact is kept, as in `lostwax serve`.
    """
    from lostwax.cli.chat_terminal import Plain, Terminal
    from lostwax.cli.conversation import Conversation

    is_default = path is None and url is None
    if temperature is None and is_default:
        temperature = 0.0
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
    }
    given = {name: value for name, value in options.items() if value is not None}
    prompts = _piped() if prompt is None else prompt
    _require_text([*prompts, system or ""])
    if not all(text.strip() for text in prompts):
        raise NothingToAsk("the prompt is empty; pipe one, or give --prompt TEXT")
    with _client(path, url, model, api_key_file, cache) as client:
        conversation = Conversation(client.stream, system=system, thinking=thinking, options=given)
        if prompts:
            Plain(conversation, sys.stdout).run(prompts)
            return
        result(f"{client.model if is_default else client.url}; /help shows what can be typed")
        Terminal(conversation, sys.stdout).run()


def _piped() -> list[str]:
    """The prompt on standard input, nothing where that is a terminal."""
    if sys.stdin.isatty():
        return []
    try:
        text = sys.stdin.read(MAX_PROMPT_CHARS + 1)
    except UnicodeDecodeError as error:
        raise NothingToAsk(f"standard input is no text in UTF-8: {error}") from error
    if len(text) > MAX_PROMPT_CHARS:
        raise NothingToAsk(f"standard input holds more than {MAX_PROMPT_CHARS} characters")
    return [text.strip()]


def _require_text(given: list[str]) -> None:
    """Bytes that are no UTF-8 come from the command line, and in some locales from a pipe, as
    halves of surrogate pairs."""
    try:
        "".join(given).encode()
    except UnicodeEncodeError as error:
        raise NothingToAsk(f"the prompt is no text in UTF-8: {error}") from error


@contextmanager
def _client(
    path: Path | None,
    url: str | None,
    model: str | None,
    api_key_file: Path | None,
    cache: Path | None,
) -> Generator[ChatClient]:
    from lostwax.cli.chat_client import ChatClient
    from lostwax.evals.connect import read_key

    if cache is not None and (url is not None or path is not None):
        raise NothingToAsk("--cache is where the default model is kept: leave it out")
    if url is not None:
        if path is not None:
            raise NothingToAsk("give PATH or --url, not both")
        key = None if api_key_file is None else read_key(api_key_file)
        with closing(ChatClient(url, model=model, key=key)) as client:
            yield client
        return
    if model is not None or api_key_file is not None:
        raise NothingToAsk("--model and --api-key-file go with --url")
    from rich.console import Console
    from rich.text import Text

    from lostwax.cli.served_child import served_child

    arguments = ([] if path is None else [str(path)]) + (["--cache", str(cache)] if cache else [])
    status = Console(stderr=True).status("starting the model")

    def progress(line: str) -> None:
        said = one_line(f"starting the model: {line}", MAX_NAME)
        status.update(Text(said, overflow="ellipsis", no_wrap=True))

    status.start()
    try:
        with served_child(arguments, progress) as ours:
            status.stop()
            with closing(ChatClient(ours, is_ours=True)) as client:
                yield client
    finally:
        status.stop()
