"""Answers with tool calls, whole and malformed, in pieces that a model may stop at. Knows no test.

Each list of pieces is one answer in a format: its marks lie in parts, and where a reader could go
wrong (quotes, escapes, line breaks, parts of marks in text) there is a border.
"""

from __future__ import annotations

from lostwax.server.formats.encoding_v31 import CALL, CALL_END, CALLS, CALLS_END, SEPARATOR
from lostwax.server.formats.encoding_v32 import DSML, THINK_END
from lostwax.server.formats.message import MessageDelta, MessageReader

OPEN, CLOSE = f"<{DSML}function_calls>", f"</{DSML}function_calls>"
INVOKE_END, PARAMETER_END = f"</{DSML}invoke>", f"</{DSML}parameter>"


def invoke(name: str, *parameters: str) -> str:
    """A call as the model's encoder writes it."""
    return f'<{DSML}invoke name="{name}">\n' + "\n".join(parameters) + f"\n{INVOKE_END}"


def parameter(name: str, value: str, is_string: bool = True) -> str:
    """A parameter as the model's encoder writes it."""
    said = "true" if is_string else "false"
    return f'<{DSML}parameter name="{name}" string="{said}">{value}{PARAMETER_END}'


def block(*calls: str) -> str:
    """A block of calls, with the blank line before it."""
    return f"\n\n{OPEN}\n" + "\n".join(calls) + f"\n{CLOSE}"


def v31(name: str, arguments: str) -> str:
    """One call as V3.1's template has it."""
    return f"{CALL}{name}{SEPARATOR}{arguments}{CALL_END}"


D, BAR = DSML, DSML[0]
DSML_PIECES: dict[str, list[str]] = {
    "whole": [
        "Sure.\n", "\n\n<", f"{D}function", "_calls>\n<", f'{D}invoke name="', "ge", 't">\n<',
        f'{D}parameter name="k', '" string="true">a"', "\\<", "ü\n</", D, "parameter>\n</",
        f"{D}invoke", ">\n</", f"{D}function_calls>",
    ],
    "json": [
        f'\n\n{OPEN}\n<{D}invoke name="f">', f'\n<{D}parameter name="a" string="', "false", '">[1',
        ', {"k": "\\', 'u00', 'e9"', "}]", f"</{BAR}", f"DSML{BAR}", "parameter>\n",
        f'<{D}parameter name="b', '" string="true">', f"</{D}parameter>\n</{D}inv",
        f"oke>\n<{D}invoke ", f'name="g"/>{CLOSE}',
    ],
    "bare and text": [
        "a <", f"{BAR} b ", "\n", "\n", f"<{D}invoke", ' name="f">', '\n{"a"', ": 1}", f"\n</{D}in",
        "voke>", " \n ", f"<{D}function_calls>", "\n", invoke("g"), f"{CLOSE}\n", "more",
    ],
    "broken value": [
        "hm\n", "\n", f"{OPEN}\n", invoke("f", parameter("a", "1", False)), "\n<", D, "invoke",
        ' name="g">', f'\n<{D}parameter name="b" string="false">', "{1", "2}", f"</{D}",
        "parameter>", f"\n</{D}invoke>", f"\n{CLOSE}", " so",
    ],
    "cut off": [
        "\n", f"\n{OPEN}", "\n", f'<{D}invoke name="f"', ">\n", f"<{D}parameter", ' name="a" ',
        'string="true">', "very ", "long", "\n\n<", f"/{D}", "para", "<", "/", D,
    ],
    "no call": [
        "if a <", " b:\n", "\n", "<", D[:3], "ML", D[-1], "oops>", "\n\n", "<", D, "invoke name=",
        '"f">', "\n", f"</{D}invoke>", ".",
    ],
}  # fmt: skip
V31_PIECES: dict[str, list[str]] = {
    "whole": [
        "Sure. ", "<", CALLS[1:12], CALLS[12:], CALL, "ge", f"t{SEPARATOR[:6]}", SEPARATOR[6:],
        '{"k":', ' "a\\', '"}', f"<{BAR}", '"}', CALL_END[:14], CALL_END[14:], CALLS_END,
    ],
    "two": [
        CALLS, f"{CALL}f{SEPARATOR}", "{", "}", CALL_END[:5], CALL_END[5:], f"{CALL}g{SEPARATOR}",
        f'{{"a": "{CALL_END[:9]}', f'{CALL_END[9:]}", "b": [1', ".5e", "3, nul", "l]", "} ",
        CALL_END, CALLS_END, "\n",
    ],
    "broken": [
        "x", CALLS, v31("f", "{}"), CALL, "g", SEPARATOR, '{"a"', ": 1", ", ]", "}", CALL_END,
        CALLS_END, " th", "us", SEPARATOR[:2], SEPARATOR[2:],
    ],
    "bare, cut off": [
        f"x {CALLS[:6]}", "▁", "outputs", CALL, "f", SEPARATOR, "\n", '{"a": ', "tr", "ue}\n",
        CALL_END, "\n\n", CALL, "g", SEPARATOR, '{"a": "tr',
    ],
}  # fmt: skip
REASONING_PIECES: dict[str, list[str]] = {
    "thinks": [
        "<th", "ink>", "so <", "/", "th", "ink", "ing", "</", "think", ">", "\n", "\n<", D,
        "function_calls>", invoke("f"), CLOSE,
    ],
    "never ends": ["<", "think", ">a", "<", "/thin", "k ", OPEN, invoke("f"), "\n", "</", "think"],
    "marks behind": [
        "a", THINK_END, "<", "think>", "b", "</", "think>", "c\n", "\n<", D, "fun", "ction_calls>",
        "\n", invoke("f"), "\n</", f"{D}function_calls>",
    ],
}  # fmt: skip


def read(reader: MessageReader, pieces: list[str]) -> MessageDelta:
    """The sum of all deltas."""
    message = MessageDelta()
    for piece in pieces:
        message.extend(reader.push(piece))
    message.extend(reader.finish())
    return message


def outcome(reader: MessageReader, pieces: list[str]) -> tuple[object, ...]:
    """All that a reader says of an answer."""
    message = read(reader, pieces)
    return message, reader.num_calls, reader.broken, reader.in_reasoning, reader.reasoning_end
