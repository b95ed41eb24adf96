"""`lostwax chat encode`: the prompt of a chat. Asks no model."""

from __future__ import annotations

from lostwax.backends.runtime.say import result_json, result_lines
from lostwax.cli.chat_input import BadInput, Format, read_chat
from lostwax.cli.named_paths import Folder
from lostwax.cli.option_types import Flag, Json, OptionRefused


def chat_encode(
    *,
    format: Format = "deepseekv32",
    thinking: Flag = False,
    tokenizer: Folder | None = None,
    json_: Json = False,
) -> None:
    """Print the prompt of the chat on standard input.

    That is a JSON list of messages, or a request with messages, tools and chat_template_kwargs.

    Parameters
    ----------
    format
        deepseekv32 (DSML), or deepseekv31: V3.1's, and V3.2-Exp's up to where turns are opened.
    thinking
        The model reasons before it answers.
    tokenizer
        A folder with a tokenizer.json, for the prompt's ids with --json.
    json_
        Print the prompt as a JSON string on standard output, character by character as it is.
    """
    if tokenizer is not None and not json_:
        raise OptionRefused("--tokenizer gives the ids that --json prints: add --json")
    from lostwax.server.formats.encoders import encode_chat, marks_in
    from lostwax.server.formats.pieces import joined

    chat = read_chat()
    if thinking and chat.thinking is False:
        raise BadInput("chat_template_kwargs say the opposite of --thinking; leave one of them out")
    pieces = encode_chat(
        format,
        chat.messages,
        chat.tools,
        thinking=thinking or bool(chat.thinking),
        trust_content=chat.trust_content,
    )
    if not json_:
        result_lines(joined(pieces))
        return
    report: dict[str, object] = {"prompt": joined(pieces)}
    if tokenizer is not None:
        from lostwax.server.gateway.tokenizer_file import load_codec

        codec = load_codec(tokenizer)
        if not codec.can_encode:
            raise OptionRefused(f"{tokenizer} has no tokenizer.json; give a checkpoint's folder")
        if missing := [mark for mark in marks_in(pieces) if mark not in codec.marks]:
            raise OptionRefused(
                f"the tokenizer of {tokenizer} has no token {missing[0]}, which this prompt needs;"
                " give the folder of a checkpoint that was trained on such chats"
            )
        report["ids"] = codec.encode_pieces(pieces)
    result_json(report)
