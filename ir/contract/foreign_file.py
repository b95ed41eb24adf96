"""The border where a file that anybody may have written becomes bytes, and bytes a structure.

Whatever is wrong leaves it as one error that names the file: what is no regular file is never
opened for reading, so that a FIFO or a device neither hangs nor fills memory; size is bounded
before anything is read; decoding gives a typed structure or nothing. Links are followed: what is
read counts, not where it lies. Knows no kind of file and no remedy: those are the caller's.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from lostwax.ir.contract.one_line import one_line

T = TypeVar("T")

DAMAGE = (
    ValueError,  # msgspec's own errors, invalid UTF-8, structures' own checks
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RecursionError,
    MemoryError,
)
"""What code raises that meets a structure which nobody meant to write."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


_PATTERN = re.compile(r"matching regex '.*'(?= - at |$)", re.DOTALL)
"""What msgspec says of a string that it refuses: longer than what counts, which is the field."""


class BadFile(ValueError):
    """A file that cannot be taken as it is; the message begins with its path."""


class MissingFile(BadFile):
    """There is nothing at the path."""


def reason(error: BaseException) -> str:
    """An exception of `DAMAGE` or an OSError in a few words, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    text = one_line(_PATTERN.sub("in the form of a name or path", str(error)))
    return f"no {text}" if isinstance(error, KeyError) else text or type(error).__name__


def require_regular(path: Path) -> None:
    """Raise MissingFile or BadFile unless a regular file, or a link to one, lies there."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFile(f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BadFile(f"{path} cannot be opened ({reason(error)})") from error
    if not stat.S_ISREG(mode):
        raise BadFile(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file")


def open_regular(path: Path) -> BinaryIO:
    """A regular file opened for reading. Raises MissingFile, BadFile."""
    require_regular(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise BadFile(f"{path} cannot be opened ({reason(error)})") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):  # what lay there a moment ago is gone
        os.close(handle)
        raise BadFile(f"{path} is not a file")
    return os.fdopen(handle, "rb")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """All bytes of a regular file of at most `max_bytes`. Raises MissingFile, BadFile."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise BadFile(f"{path} has {size} bytes, and at most {max_bytes} are read")
        try:
            content = file.read(size + 1)
        except (OSError, MemoryError) as error:
            raise BadFile(f"{path} cannot be read ({reason(error)})") from error
    if len(content) != size:
        raise BadFile(f"{path} changes while it is read")
    return content


def decoded(content: bytes, kind: type[T], path: Path) -> T:
    """JSON as a structure of a kind. Raises BadFile, whatever the bytes are."""
    try:
        return msgspec.json.decode(content, type=kind)
    except DAMAGE as error:
        raise BadFile(f"{path} is damaged ({reason(error)})") from error
