"""`lostwax chat encode`: the prompt of a chat, by the server's own way to it. Asks no model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lostwax.backends.runtime.say import result_json, result_lines
from lostwax.cli.chat_input import BadInput, Format, read_chat
from lostwax.cli.named_paths import File, Folder
from lostwax.cli.option_types import Flag, Json, OptionRefused

if TYPE_CHECKING:
    from lostwax.server.formats.pieces import Piece
    from lostwax.server.gateway.chat_models import ChatRequest
    from lostwax.server.gateway.tokenizer import Codec


def chat_encode(
    *,
    format: Format | None = None,
    thinking: Flag = False,
    chat_template: File | None = None,
    tokenizer: Folder | None = None,
    json_: Json = False,
) -> None:
    """Print the prompt of the chat on standard input.

    That is a JSON list of messages, or a request of /v1/chat/completions, which is read as the
    server reads it.

    Parameters
    ----------
    format
        deepseekv32 (DSML), the default, or deepseekv31: V3.1's, and V3.2-Exp's up to where turns
        are opened.
    thinking
        The model reasons before it answers.
    chat_template
        A Jinja file that renders the chat in place of --format, as in `lostwax serve`.
    tokenizer
        A folder with a tokenizer.json, for the prompt's ids with --json.
    json_
        Print the prompt as a JSON string on standard output, character by character as it is.
    """
    if tokenizer is not None and not json_:
        raise OptionRefused("--tokenizer gives the ids that --json prints: add --json")
    if chat_template is not None and format is not None:
        raise OptionRefused("--chat-template renders the chat in place of --format; give one")
    from lostwax.server.formats.encoders import marks_in
    from lostwax.server.formats.pieces import joined

    codec = None if tokenizer is None else _codec(tokenizer)
    if chat_template is None:
        pieces = _encoded(format or "deepseekv32", thinking=thinking)
    else:
        pieces = _templated(chat_template, codec, thinking=thinking)
    if not json_:
        result_lines(joined(pieces))
        return
    report: dict[str, object] = {"prompt": joined(pieces)}
    if codec is not None:
        if missing := [mark for mark in marks_in(pieces) if mark not in codec.marks]:
            raise OptionRefused(
                f"the tokenizer of {tokenizer} has no token {missing[0]}, which this prompt needs;"
                " give the folder of a checkpoint that was trained on such chats"
            )
        report["ids"] = codec.encode_pieces(pieces)
    result_json(report)


def _codec(folder: Path) -> Codec:
    from lostwax.server.gateway.tokenizer_file import load_codec

    codec = load_codec(folder)
    if not codec.can_encode:
        raise OptionRefused(f"{folder} has no tokenizer.json; give a checkpoint's folder")
    return codec


def _encoded(format: Format, *, thinking: bool) -> list[Piece]:
    """A chat that has ended, with the assistant's last message, has a prompt, too."""
    from lostwax.server.gateway.chat_models import ChatRequest
    from lostwax.server.gateway.chat_pieces import chat_pieces

    request = _thinking(read_chat(ChatRequest), thinking=thinking)
    return chat_pieces(request, format, needs_turn=False)


def _templated(path: Path, codec: Codec | None, *, thinking: bool) -> list[Piece]:
    from lostwax.cli.serve_chats import named_template
    from lostwax.server.formats.encoders import MARKS
    from lostwax.server.gateway.templated_chat import templated_pieces
    from lostwax.server.gateway.templated_request import TemplatedChatRequest

    template = named_template(path)
    request = _thinking(read_chat(TemplatedChatRequest), thinking=thinking)
    marks = MARKS if codec is None else codec.marks
    return templated_pieces(request, template, marks)


def _thinking(request: ChatRequest, *, thinking: bool) -> ChatRequest:
    """The request with what --thinking says."""
    if not thinking:
        return request
    if request.template.thinks is False:
        raise BadInput("chat_template_kwargs say the opposite of --thinking; leave one of them out")
    return request.that_thinks()
