"""Reads large request bodies in a process of its own. Knows frames, no HTTP.

The other end is `body_reader.py`. Frames, each 8 bytes of length and so many bytes, come on
standard input: once a tokenizer, then a job and a body for each request; for each of these two
frames go out, an empty one when it begins to read, and a Prepared,
an Answered, a Refused or a Fault. The process ends with its input, so it does not outlive the
gateway by more than one request.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.prepare import read_body
from lostwax.server.gateway.prepared import Answered, Job, Prepared, Refused
from lostwax.server.gateway.tokenizer import Codec, codec_of
from lostwax.server.told_fault import as_text, fault_of

LENGTH_BYTES = 8
MAX_MEMORY_BYTES = 4 * 2**30
"""Of addresses. What a body may cost lies far below; this ends the process where that is wrong."""
NICENESS = 5


def run() -> None:
    """Answer frames until there are no more."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MAX_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    os.nice(NICENESS)  # answers that are on their way come first
    # Nothing that a library prints may get between the frames.
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    tokenizer = read_frame(source)
    if tokenizer is None:
        return
    codec = codec_of(tokenizer)
    del tokenizer
    jobs, encode = msgspec.msgpack.Decoder(Job), msgspec.msgpack.Encoder().encode
    while (job := read_frame(source)) is not None and (body := read_frame(source)) is not None:
        _write_frame(frames, b"")
        answer = answer_of(body, jobs.decode(job), codec, encode)
        del job, body  # or the largest of all would be kept until the next comes
        _write_frame(frames, answer)


def _write_frame(frames: BinaryIO, frame: bytes) -> None:
    frames.write(len(frame).to_bytes(LENGTH_BYTES, "big"))
    frames.write(frame)
    frames.flush()


def read_frame(source: BinaryIO) -> bytes | None:
    """The next frame; None at the end of the input."""
    head = source.read(LENGTH_BYTES)
    size = int.from_bytes(head, "big")
    frame = source.read(size)
    return None if len(head) < LENGTH_BYTES or len(frame) < size else frame


def answer_of(body: bytes, job: Job, codec: Codec, encode: Callable[[Any], bytes]) -> bytes:
    """The frame of what a body is. A fault, met while it is read or written, ends one request and
    not those that wait behind it."""
    try:
        return encode(_read(body, job, codec))
    except Exception as error:
        return encode(fault_of(error))


def _read(body: bytes, job: Job, codec: Codec) -> Prepared | Answered | Refused:
    try:
        return read_body(body, job, codec)
    except ApiError as error:
        message = as_text(error.message)
        return Refused(status=error.status, message=message, code=error.code, param=error.param)
    except MemoryError:
        message = "reading the body takes too much memory; send less"
        return Refused(status=413, message=message, code="body_too_costly", param=None)


if __name__ == "__main__":
    run()
