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


_ANSWERS = msgspec.msgpack.Decoder(_Text | _Fault | _Refusal)


def render_apart(template: ChatTemplate, variables: Mapping[str, Any]) -> str:
    """The prompt of a template that was tried. Raises TemplateFault, also where it takes too much,
    and TemplateRefusal."""
    compiled(template.name, template.source)  # here, for all forks that follow
    return _text(template.name, lambda: render(template, variables))


def tried_template(path: Path, sample: Mapping[str, Any]) -> ChatTemplate:
    """The template of a file, which was compiled and rendered with a first message of a user's and
    `sample` beside it. Raises TemplateFault, which names the line, and OSError."""
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
    template = ChatTemplate(str(path), source)
    _text(template.name, lambda: (read_template(template.name, source), "")[1])  # it may take all
    with suppress(TemplateRefusal):  # it reads others
        render_apart(template, {"messages": list(_SAMPLE), **sample})
    return read_template(template.name, source)


def _text(name: str, make: Callable[[], str]) -> str:
    answer = _forked(make)
    if answer is None:
        raise TemplateFault(
            f"the chat template {name} takes more than {RENDER_S:g} s, or too much memory; make it"
            " simpler, or send less"
        )
    if isinstance(answer, _Refusal):
        raise TemplateRefusal(answer.message)
    if isinstance(answer, _Fault):
        raise TemplateFault(answer.message)
    return answer.text


def _forked(make: Callable[[], str]) -> _Text | _Fault | _Refusal | None:
    """What a fork makes; None where it was ended."""
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
        return _ANSWERS.decode(content)
    except msgspec.DecodeError:  # it was ended before, or while it wrote
        return None


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


def _answer(writing: int, make: Callable[[], str]) -> NoReturn:
    """In the fork: render, write and end, without what a process does at its end."""
    try:
        _bound()
        content = msgspec.msgpack.encode(_made(make))
        while content:
            content = content[os.write(writing, content) :]
    finally:
        os._exit(0)


def _made(make: Callable[[], str]) -> _Text | _Fault | _Refusal:
    try:
        text = make()
        text.encode()
        return _Text(text)
    except TemplateFault as error:
        return _Fault(str(error))
    except TemplateRefusal as error:
        return _Refusal(str(error).encode("utf-8", "replace").decode())
    except UnicodeEncodeError:
        return _Fault("the chat template writes half a character (surrogate); mend it")


def _bound() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, RENDER_S)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MORE_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # ending by an alarm is no crash to look into
