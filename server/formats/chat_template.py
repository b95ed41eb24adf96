"""A chat's prompt by a Jinja template that an operator brings. Knows no process and no tokens.

The template is a program: it runs in jinja2's sandbox, which keeps it from attributes and files.
Nothing here bounds its time and memory; `template_apart.py` does.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lostwax.server.formats.brought_template import ChatTemplate
from lostwax.server.formats.template_marks import guarded

MAX_TEMPLATE_BYTES = 1 << 18
"""The longest that checkpoints bring has a tenth."""
MAX_CODE_CHARS = 1 << 20
"""Of what a template is translated to."""
MAX_PROMPT_CHARS = 1 << 23
"""More than any context holds."""
MAX_SAID_CHARS = 512
"""Of what a template says."""


class TemplateFault(ValueError):
    """The template cannot be read, or not rendered; the message names file, line and what to do."""


class TemplateRefusal(ValueError):
    """The template itself refuses these messages, by raise_exception()."""


def read_template(name: str, source: str) -> ChatTemplate:
    """The template, translated. jinja2 computes what is constant while it does, so this takes what
    a render may take. Raises TemplateFault."""
    environment = _environment()
    try:
        tree = environment.parse(source)
        reads = frozenset(find_undeclared_variables(tree))
        code = environment.compile(source, name, name, raw=True)
    except Exception as error:
        raise _fault(name, error) from error
    if len(code) > MAX_CODE_CHARS:
        raise TemplateFault(f"{name} becomes a program of {len(code)} characters; make it simpler")
    return ChatTemplate(name, code, reads)


def render(
    template: ChatTemplate, variables: Mapping[str, Any], marks: frozenset[str] = frozenset()
) -> str:
    """The prompt, in which the template's own marks are guarded (`template_marks.py`), where they
    are of these. Raises TemplateFault and TemplateRefusal."""
    parts, num_chars = list[str](), 0
    try:
        for part in compiled(template.name, template.code, marks).generate(variables):
            parts.append(part)
            num_chars += len(part)
            if num_chars > MAX_PROMPT_CHARS:
                raise TemplateFault(
                    f"{template.name} writes a prompt of more than {MAX_PROMPT_CHARS} characters;"
                    " shorten it"
                )
    except (TemplateRefusal, TemplateFault):
        raise
    except Exception as error:  # a template's expressions raise whatever Python's do
        raise _fault(template.name, error) from error
    return "".join(parts)


class _Generation(Extension):
    """`{% generation %}` marks what trainers learn from; here it is its body."""

    tags = {"generation"}  # noqa: RUF012  (as jinja2 declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body's nodes."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """As `apply_chat_template` of transformers has it: its options, filters and functions."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        loader=None,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _tojson
    return environment


@cache
def compiled(name: str, code: str, marks: frozenset[str]) -> jinja2.Template:
    """The template of its code, kept, its marks guarded. Raises what Python does where that is
    nested too deeply."""
    environment = _environment()
    functions = {"raise_exception": _refuse, "strftime_now": _now}
    tree = ast.parse(code, name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = guarded(node.value, marks)
    module = compile(tree, name, "exec")
    return jinja2.Template.from_code(environment, module, environment.make_globals(functions))


def _refuse(message: object) -> NoReturn:
    raise TemplateRefusal(str(message)[:MAX_SAID_CHARS])


def _now(format: str) -> str:
    return datetime.now().astimezone().strftime(format)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _fault(name: str, error: BaseException) -> TemplateFault:
    line = error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else None
    line = line or _line(name, error.__traceback__)
    place = f"{name}, line {line}" if line else name
    said = str(error)[:MAX_SAID_CHARS].rstrip(".") or type(error).__name__
    if isinstance(error, MemoryError):
        said = "it takes too much memory"
    elif isinstance(error, RecursionError):
        said = "it is nested too deeply, or calls itself too often"
    return TemplateFault(f"the chat template cannot be rendered: {place}: {said}; mend it")


def _line(name: str, traceback: TracebackType | None) -> int | None:
    """The template's innermost line: jinja2 makes tracebacks tell of these."""
    found = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == name:
            found = traceback.tb_lineno
        traceback = traceback.tb_next
    return found
