"""Reads a request's JSON, with bounds before work. Knows structs and errors, no particular request.

What a body can cost is bounded by its size alone, whatever is in it:

- msgspec reads straight into the request's struct and stops at the first thing that is wrong, so no
  work follows an error, and nothing is built that no field asks for.
- A body that is no text in UTF-8 is none: whoever keeps a part of it as it came may decode it.
- All that a request may hold many of (messages, parts, calls, texts) is written with strings, or is
  the ids of a prompt, which have a bound of their own (`prompts.py`). Strings are counted before a
  body is read: a string's first quote has no backslash before it, and a quote inside a string has
  one, so `quotes - escaped quotes` is at least the number of strings and at most twice that.
- What is not honoured is kept as JSON that nobody reads (`unsupported.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.unsupported import FieldError

T = TypeVar("T")

MAX_STRINGS = 100_000
"""Names and values: a message in the usual form has four."""
MAX_SHOWN_CHARS = 256
"""Longer names and messages are cut: they are the client's."""
_PLACE = re.compile(r" - at (?:`key` in )?`\$((?:\.\w+|\[\d+\]|\[\.\.\.\])*)`\Z")
_UNKNOWN = "Object contains unknown field `"
_MISSING = "Object missing required field `"
_REMEDIES = (
    (
        re.compile(r"response_format(\.type)?"),
        "its type is text, json_object or json_schema",
    ),
    (
        re.compile(r"messages\[\d+\]\.content\[\d+\](\.content\[\d+\])?\.type"),
        "only parts of type 'text' are read; leave out images, audio and files",
    ),
    (
        re.compile(r"messages\[\d+\]\.role"),
        "use system, developer, user, assistant or tool",
    ),
    (
        re.compile(r"tools\[\d+\]\.type"),
        "only tools of type 'function' are known, which the client runs; no other runs here",
    ),
    (
        re.compile(r"input\[\d+\]\.type"),
        "messages, function calls, their outputs and reasoning are known; leave out items of other"
        " tools and references to stored items",
    ),
    (
        re.compile(r"input\[\d+\]\.(content|output|summary)\[\d+\]\.type"),
        "only texts are read; leave out images, audio and files",
    ),
    (re.compile(r"tool_choice(\.type)?"), "use none, auto, required or the name of a function"),
)
"""What to do instead of a value that a list of words does not hold. A request whose words are
others says so in its `REMEDIES`, by the place without numbers: `messages[].role`."""
_NO_NUMBER = re.compile(rb'"(\w{1,64})"\s*:\s*-?(NaN|Infinity)\b')


def decode(body: bytes | memoryview, kind: type[T], root: str = "") -> T:
    """The request; ApiError (400) names the first parameter that is wrong, as in `stop[1]`.

    `root` is the parameter that the body is the value of, if it is not a whole request.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError as error:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from error
    except msgspec.ValidationError as error:
        raise _wrong_value(error, root, getattr(kind, "REMEDIES", {})) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _no_json(bytes(body), str(error)) from error


def require_text(body: bytes) -> None:
    """ApiError where a body is not UTF-8. It is looked at once and whole: msgspec does not look
    into the texts of JSON that it keeps as it came."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        message = f"the body is not JSON: byte {error.start} is no UTF-8; encode it so"
        raise ApiError(400, message, code="invalid_json") from error


def require_few_strings(body: bytes) -> None:
    """ApiError where a body holds more texts and names than any request needs."""
    if (body.count(b'"') - body.count(b'\\"')) // 2 > MAX_STRINGS:
        message = f"the body holds more than {MAX_STRINGS} names and texts; send fewer"
        raise ApiError(400, message, code="invalid_value")


def _no_json(body: bytes, reason: str) -> ApiError:
    # Python's json writes these where a number should be: say where.
    byte = re.search(r"\(byte (\d+)\)", reason)
    at = int(byte[1]) if byte else 0
    if found := _NO_NUMBER.search(body, max(at - 80, 0), at + 10):
        name, number = (part.decode() for part in found.groups())
        return ApiError(400, f"{name!r}: {number} is no number", code="invalid_value", param=name)
    return ApiError(400, f"the body is not JSON: {reason[:MAX_SHOWN_CHARS]}", code="invalid_json")


def _wrong_value(error: msgspec.ValidationError, root: str, own: Mapping[str, str]) -> ApiError:
    what, path = _parted(str(error))
    path = f"{root}{path}".removeprefix(".")[:MAX_SHOWN_CHARS]
    if isinstance(error.__cause__, FieldError):
        path, what = _joined(path, error.__cause__.field), str(error.__cause__)
    elif what.startswith(_UNKNOWN):
        path = _joined(path, what[len(_UNKNOWN) : -1])
        message = f"unknown parameter {path!r}; remove it"
        return ApiError(400, message, code="unknown_parameter", param=path)
    elif what.startswith(_MISSING):
        return missing(_joined(path, what[len(_MISSING) : -1]))
    elif what.endswith("got `null`") and path and not path.endswith("]"):
        return missing(path)
    elif what.startswith("Invalid"):
        general = (text for place, text in _REMEDIES if place.fullmatch(path))
        remedy = own.get(re.sub(r"\[\d+\]", "[]", path)) or next(general, None)
        what = f"{what}; {remedy}" if remedy else what
    message = f"{path!r}: {what}" if path else what
    return ApiError(400, message[: 2 * MAX_SHOWN_CHARS], code="invalid_value", param=path or None)


def missing(param: str) -> ApiError:
    """A parameter that every request needs is not there."""
    return ApiError(400, f"{param!r} is required", code="missing_parameter", param=param)


def _parted(reason: str) -> tuple[str, str]:
    """What msgspec says, and where: ` - at `$.a[0]`` follows where it is not the whole body."""
    place = _PLACE.search(reason, max(len(reason) - 2 * MAX_SHOWN_CHARS, 0))
    return (reason[: place.start()], place[1]) if place else (reason, "")


def _joined(path: str, name: str) -> str:
    return (f"{path}.{name}" if path else name)[:MAX_SHOWN_CHARS]
