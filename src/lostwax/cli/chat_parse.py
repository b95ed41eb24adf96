"""`lostwax chat parse`: what an answer's text means. Asks no model."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

from lostwax.backends.runtime.say import result_json, say
from lostwax.cli.chat_input import Format, read_text, read_tools
from lostwax.cli.named_paths import File
from lostwax.cli.option_types import Flag, OptionRefused

if TYPE_CHECKING:
    from lostwax.server.formats.message import MessageDelta, MessageReader

_SIZES = (1, 5, 2, 17, 3, 1, 64)
"""Characters of a piece, again and again: what it holds does not depend on them."""


def chat_parse(
    *,
    format: Format = "deepseekv32",
    thinking: Flag = False,
    tools: File | None = None,
    coerce: Flag = False,
    blocks_only: Flag = False,
    stream: Flag = False,
) -> None:
    """Print the message that an answer's text holds, as JSON in OpenAI's shape.

    The text is read from standard input; one end-of-sentence mark at its end is left out. What is
    malformed is said on standard error, and its text is content.

    Parameters
    ----------
    format
        deepseekv32 (DSML), or deepseekv31, which V3.2-Exp writes, too.
    thinking
        The prompt ended inside reasoning.
    tools
        A JSON file of the tools that were offered: a call of another one is text.
    coerce
        Read arguments by the types of the tools' schemas, as vLLM does, not by what the model says
        of them.
    blocks_only
        A call outside a block of calls is text, too.
    stream
        Read the text in small pieces; the result is the same.
    """
    if coerce and tools is None:
        raise OptionRefused("--coerce goes by the schemas of --tools FILE: add it")
    if coerce and format != "deepseekv32":
        raise OptionRefused(f"--coerce changes nothing of {format}, whose arguments are JSON")
    from lostwax.server.formats.encoding_v32 import EOS
    from lostwax.server.formats.message import MessageDelta
    from lostwax.server.formats.readers import reader_of

    offered = None if tools is None else read_tools(tools)
    text = read_text()
    if text.removesuffix("\n").endswith(EOS):
        text = text.removesuffix("\n").removesuffix(EOS)
    reader = reader_of(format, thinks=thinking, tools=offered, coerce=coerce, bare=not blocks_only)
    message = MessageDelta()
    for piece in _pieces(text) if stream else [text]:
        message.extend(reader.push(piece))
    message.extend(reader.finish())
    if reader.broken:
        say(f"lostwax: a call is malformed, so its text is content: {reader.broken}")
    result_json(_as_openai(message, reader))


def _as_openai(message: MessageDelta, reader: MessageReader) -> dict[str, Any]:
    calls = [
        {
            "id": f"call_{call.index}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in message.calls[: reader.num_calls]
    ]
    return {
        "role": "assistant",
        "content": message.content or (None if calls or reader.in_reasoning else ""),
        "reasoning_content": message.reasoning or None,
        "tool_calls": calls,
    }


def _pieces(text: str) -> list[str]:
    pieces, at = list[str](), 0
    for size in cycle(_SIZES):
        if at >= len(text):
            break
        pieces.append(text[at : at + size])
        at += size
    return pieces
