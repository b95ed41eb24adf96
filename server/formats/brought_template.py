"""A chat template that an operator brings, as data. Runs nothing."""

from __future__ import annotations

import msgspec


class ChatTemplate(msgspec.Struct, frozen=True, tag="template"):
    """What errors call a template (clients hear it, so the file's name alone), the variables that
    it reads, and what jinja2 makes of its text: a module of Python, which is run in the sandbox
    alone."""

    name: str
    code: str
    reads: frozenset[str]
