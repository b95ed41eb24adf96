"""Request bodies that cost as much as their size allows, for both routes. Knows no server."""

from __future__ import annotations

from collections.abc import Callable

Shape = Callable[[int], bytes]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


def _filled(head: bytes, unit: bytes, tail: bytes) -> Shape:
    """`unit` as often as it fits, with the last one's comma left out."""

    def body(num_bytes: int) -> bytes:
        count = (num_bytes - len(head) - len(tail)) // len(unit)
        return head + (unit * count).removesuffix(b",") + tail

    return body


def _numbered(head: bytes, unit: str, tail: bytes) -> Shape:
    """The same with a number in each unit, which makes its key another."""

    def body(num_bytes: int) -> bytes:
        count = num_bytes // (len(unit) + 6)
        units = b",".join(unit.replace("#", f"{i:06d}").encode() for i in range(count))
        return head + units + tail

    return body


_USER = b'{"messages":[{"role":"user","content":'
_PROMPT = b'{"prompt":'
_ASK = b'{"prompt":"x",'
_CALL = b'{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":'

SHAPES: dict[str, tuple[str, Shape]] = {
    "nulls": (COMPLETIONS, _filled(_PROMPT + b"[", b"null,", b"]}")),
    "ids": (COMPLETIONS, _filled(_PROMPT + b"[", b"12345,", b"]}")),
    "digits": (COMPLETIONS, _filled(_PROMPT + b"[", b"1,", b"]}")),
    "empty lists": (COMPLETIONS, _filled(_PROMPT + b"[", b"[],", b"]}")),
    "lists of one": (COMPLETIONS, _filled(_PROMPT + b"[", b"[1],", b"]}")),
    "many texts": (COMPLETIONS, _filled(_PROMPT + b"[", b'"a",', b"]}")),
    "mixed unions": (COMPLETIONS, _filled(_PROMPT + b"[", b'1,"a",[1],null,', b"]}")),
    "unknown keys": (COMPLETIONS, _numbered(_ASK, '"k#":1', b"}")),
    "duplicate keys": (COMPLETIONS, _filled(_ASK, b'"top_p":1,', b"}")),
    "duplicate prompts": (COMPLETIONS, _filled(b"{", b'"prompt":[1,2],', b"}")),
    "logit_bias": (COMPLETIONS, _numbered(_ASK + b'"logit_bias":{', '"#":1', b"}}")),
    "bad logit_bias": (COMPLETIONS, _numbered(_ASK + b'"logit_bias":{', '"#":"x"', b"}}")),
    "metadata": (COMPLETIONS, _numbered(_ASK + b'"metadata":{', '"#":"x"', b"}}")),
    "stop strings": (COMPLETIONS, _filled(_ASK + b'"stop":[', b'"a",', b"]}")),
    "stop ids": (COMPLETIONS, _filled(_ASK + b'"stop_token_ids":[', b"1,", b"]}")),
    "a huge integer": (COMPLETIONS, _filled(_ASK + b'"seed":', b"9", b"}")),
    "a huge float": (COMPLETIONS, _filled(_ASK + b'"top_p":0.', b"9", b"}")),
    "a huge exponent": (COMPLETIONS, _filled(_ASK + b'"top_p":1e', b"9", b"}")),
    "huge ids": (COMPLETIONS, _filled(_PROMPT + b"[", b"9" * 5000 + b",", b"]}")),
    "escapes": (COMPLETIONS, _filled(_PROMPT + b'"', b"\\u00e9", b'"}')),
    "short escapes": (COMPLETIONS, _filled(_PROMPT + b'"', b"\\n", b'"}')),
    "escaped quotes": (COMPLETIONS, _filled(_PROMPT + b'"', b'\\"', b'"}')),
    "a long key": (COMPLETIONS, _filled(_ASK + b'"', b"k", b'":1}')),
    "a long model": (COMPLETIONS, _filled(_ASK + b'"model":"', b"m", b'"}')),
    "deep lists": (COMPLETIONS, _filled(_PROMPT, b"[", b"}")),
    "deep objects": (COMPLETIONS, _filled(_ASK + b'"suffix":', b'{"a":', b"}")),
    "spaces between": (COMPLETIONS, _filled(_PROMPT, b" ", b"7}")),
    "spaces in a list": (COMPLETIONS, _filled(_PROMPT + b"[", b" ", b"7, true]}")),
    "a text of spaces": (COMPLETIONS, _filled(_PROMPT + b'"', b" ", b'"}')),
    "broken text": (COMPLETIONS, _filled(_PROMPT + b'"', b"\xff", b'"}')),
    "half a body": (COMPLETIONS, _filled(_PROMPT + b'"', b"a", b"")),
    "many messages": (
        CHAT,
        _filled(b'{"messages":[', b'{"role":"user","content":"x"},', b"]}"),
    ),
    "short messages": (CHAT, _filled(b'{"messages":[', b'{"role":"user"},', b"]}")),
    "bad messages": (CHAT, _filled(b'{"messages":[', b"{},", b"]}")),
    "content parts": (CHAT, _filled(_USER + b"[", b'{"type":"text","text":""},', b"]}]}")),
    "bad content parts": (CHAT, _filled(_USER + b"[", b'{"type":"image_url"},', b"]}]}")),
    "a long content": (CHAT, _filled(_USER + b'"', b"a", b'"}]}')),
    "tools": (CHAT, _filled(_USER + b'"x"}],"tools":[', b"{},", b"]}")),
    "unread tools": (
        CHAT,
        _filled(b'{"tool_choice":"none","tools":[', b"[],", b'],"messages":[{"role":"judge"}]}'),
    ),
    "lists as arguments": (CHAT, _filled(_CALL + b'{"a":[', b"[],", b"]}}}]}]}")),
    "keys as arguments": (CHAT, _numbered(_CALL + b"{", '"#":0', b"}}}]}]}")),
    "deep arguments": (CHAT, _filled(_CALL + b'"', b"[", b'"}}]}]}')),
    "a format": (
        CHAT,
        _filled(_USER + b'"x"}],"response_format":{"a":[', b"[],", b"]}}"),
    ),
    "annotations": (CHAT, _filled(_USER + b'"x","annotations":[', b"{},", b"]}]}")),
}
"""By name: where it is sent, and the body of about so many bytes. All but
those below are to be refused."""
TAKEN = ("a huge float", "duplicate prompts")
"""Valid, however long: a number with many digits, and a key that stands there again."""
TAKEN_SHORT = (
    "ids",
    "digits",
    "duplicate keys",
    "escapes",
    "short escapes",
    "escaped quotes",
    "a text of spaces",
    "a long content",
)
"""Valid where they fit the context."""
