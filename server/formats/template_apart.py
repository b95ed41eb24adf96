"""Renders a template in a process of its own, which the kernel bounds. Knows no request.

A template may loop for ever, or want more memory than there is, in a single call of the
interpreter's that nothing interrupts. So each prompt is rendered by a fork, with an alarm set
before any work: that it rings ends the fork alone. A fork costs some milliseconds, and knows what
its parent has compiled.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from lostwax.server.formats.brought_template import ChatTemplate
from lostwax.server.formats.chat_template import (
    MAX_TEMPLATE_BYTES,
    TemplateFault,
    TemplateRefusal,
    compiled,
    read_template,
    render,
)

RENDER_S = 2.0
"""For a prompt; honest ones take milliseconds."""
GRACE_S = 1.0
"""A fork ends by its own alarm before that."""
MORE_BYTES = 512 << 20
"""Memory beside what the fork shares with its parent."""
_CHUNK_BYTES = 1 << 16
_SAMPLE = ({"role": "user", "content": "What is 2 plus 3?"},)


class _Text(msgspec.Struct, tag="text"):
    text: str


class _Fault(msgspec.Struct, tag="fault"):
    message: str


class _Refusal(msgspec.Struct, tag="refusal"):
    message: str


_Answer = _Text | _Fault | _Refusal | ChatTemplate
_ANSWERS = msgspec.msgpack.Decoder(_Answer)


def render_apart(
    template: ChatTemplate, variables: Mapping[str, Any], marks: frozenset[str] = frozenset()
) -> str:
    """The prompt of a template that was tried, its own marks guarded, where they are of these.
    Raises TemplateFault, also where it takes too much, and TemplateRefusal."""
    compiled(template.name, template.code, marks)  # here, for all forks that follow
    answer = _forked(template.name, lambda: _Text(render(template, variables, marks)))
    assert isinstance(answer, _Text)
    return answer.text


def tried_template(path: Path, sample: Mapping[str, Any]) -> ChatTemplate:
    """The template of a file, which was translated and rendered with a first message of a user's
    and `sample` beside it. Raises TemplateFault, which names the line, and OSError."""
    with path.open("rb") as file:
        content = file.read(MAX_TEMPLATE_BYTES + 1)
    if len(content) > MAX_TEMPLATE_BYTES:
        raise TemplateFault(
            f"{path} has more than {MAX_TEMPLATE_BYTES} bytes; give a chat template"
        )
    try:
        source = content.decode()
    except UnicodeDecodeError as error:
        raise TemplateFault(f"{path} is no text in UTF-8: {error}; give a chat template") from error
    template = translated(path.name, source)  # clients are told it: no folder of the host's
    variables = {"messages": list(_SAMPLE), **sample}
    with suppress(TemplateRefusal):  # it takes other messages
        _forked(template.name, lambda: _Text(render(template, variables)))
    return template


def translated(name: str, source: str) -> ChatTemplate:
    """A template of its text. Raises TemplateFault, also where that takes too much."""
    answer = _forked(name, lambda: read_template(name, source))
    assert isinstance(answer, ChatTemplate)
    return answer


def _forked(name: str, make: Callable[[], _Text | ChatTemplate]) -> _Text | ChatTemplate:
    """What a fork makes. Raises TemplateFault and TemplateRefusal."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(writing, make)
    os.close(writing)
    try:
        content = _read(reading)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        answer = _ANSWERS.decode(content)
    except msgspec.DecodeError as error:  # it was ended before, or while it wrote
        raise TemplateFault(
            f"the chat template {name} takes more than {RENDER_S:g} s, or too much memory; make it"
            " simpler, or send less"
        ) from error
    if isinstance(answer, _Refusal):
        raise TemplateRefusal(answer.message)
    if isinstance(answer, _Fault):
        raise TemplateFault(answer.message)
    return answer


def _read(reading: int) -> bytes:
    """All that comes until the other end is closed; nothing where that takes too long."""
    until_s = time.monotonic() + RENDER_S + GRACE_S
    parts = list[bytes]()
    poller = select.poll()
    poller.register(reading, select.POLLIN)
    while (left_s := until_s - time.monotonic()) > 0:
        if poller.poll(1000 * left_s):
            if not (part := os.read(reading, _CHUNK_BYTES)):
                return b"".join(parts)
            parts.append(part)
    return b""


def _answer(writing: int, make: Callable[[], _Answer]) -> NoReturn:
    """In the fork: make, write and end, without what a process does at its end."""
    try:
        _bound()
        content = _made(make)
        while content:
            content = content[os.write(writing, content) :]
    finally:
        os._exit(0)


def _made(make: Callable[[], _Answer]) -> bytes:
    encode = msgspec.msgpack.encode
    try:
        return encode(make())
    except TemplateFault as error:
        return encode(_Fault(_whole(error)))
    except TemplateRefusal as error:
        return encode(_Refusal(_whole(error)))
    except UnicodeEncodeError:
        return encode(_Fault("the chat template writes half a character (surrogate); mend it"))


def _whole(error: Exception) -> str:
    """What is said, where it may hold half a character."""
    return str(error).encode("utf-8", "replace").decode()


def _bound() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, RENDER_S)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MORE_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # ending by an alarm is no crash to look into
