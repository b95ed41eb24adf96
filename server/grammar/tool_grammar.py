"""The grammar of an answer that calls tools, in the form that a model's encoder writes calls in.

Arguments are held to the tools' schemas, in the schemas' order. In DSML each is a parameter: a
string as it is, anything else, and a string of which the schema says more than its values, as JSON.
Knows no request and no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from lostwax.server.formats.encoding_v32 import DSML, holds_tag, is_name
from lostwax.server.grammar.compile_grammar import JSON_OPTIONS
from lostwax.server.grammar.grammar import BadGrammar, Grammar

Format = Literal["deepseekv32", "deepseekv31"]
Choice = Literal["auto", "none", "required"] | Mapping[str, Any]
"""As OpenAI's `tool_choice`: a word, or `{"type": "function", "function": {"name": …}}`."""
_OF_ARGUMENTS = {
    "type", "properties", "required", "additionalProperties", "title", "description", "$schema",
    "$defs", "definitions",
}  # fmt: skip
"""What a strict tool's schema may say: DSML has a parameter an argument, and no place for more."""
_ABOUT = {"type", "title", "description", "default", "examples", "$defs", "definitions"}
"""What says nothing of a string's form."""
_OPEN, _CLOSE = f"\n\n<{DSML}function_calls>\n", f"</{DSML}function_calls>"
_END = f"</{DSML}parameter>"
_V31 = {
    "open": "<｜tool▁calls▁begin｜>",  # noqa: RUF001
    "begin": "<｜tool▁call▁begin｜>",  # noqa: RUF001
    "sep": "<｜tool▁sep｜>",  # noqa: RUF001
    "end": "<｜tool▁call▁end｜>",  # noqa: RUF001
    "close": "<｜tool▁calls▁end｜>",  # noqa: RUF001
}
_RAW = f"""
raw[suffix={json.dumps(_END, ensure_ascii=False)}]: RAW
RAW: /(?s:.*)/ & ~/(?s:.*)<\\/?{DSML}(?s:.*)/
"""
"""Text up to the end of its parameter, without a tag of calls in it."""


def tool_grammar(
    format: Format, tools: Sequence[Mapping[str, Any]], choice: Choice, *, parallel: bool = True
) -> Grammar | None:
    """What an answer has to be, None where it is free.

    With `required` it is calls of any of the tools, with a name one call of that tool; without
    `parallel` there is one call. With `auto` the answer is free text that calls may follow, held to
    the schemas of tools that are `strict`; without such a tool it is free.

    Raises BadGrammar where a strict tool's schema cannot be held, or the choice names no tool.
    """
    functions = [cast("Mapping[str, Any]", tool.get("function", tool)) for tool in tools]
    if not isinstance(choice, str):
        functions, parallel = [_named(functions, choice)], False
    is_free = choice == "auto"
    if choice == "none" or (is_free and not any(each.get("strict") for each in functions)):
        return None
    if not functions:
        raise BadGrammar("a call is asked for, and there is no tool; give tools")
    rules = _Dsml() if format == "deepseekv32" else _V31Calls()
    calls = [rules.call(each, free=is_free and not each.get("strict")) for each in functions]
    lines = rules.whole(calls, parallel=parallel, is_free=is_free)
    return Grammar("tools", "\n".join(lines) + "\n")


def _named(functions: Sequence[Mapping[str, Any]], choice: Mapping[str, Any]) -> Mapping[str, Any]:
    name = choice.get("function", choice).get("name")
    for function in functions:
        if function.get("name") == name:
            return function
    raise BadGrammar(f"{name!r} is asked for, which is none of the tools; name one of them")


class _Rules:
    """Rules of a grammar in Lark's form, as they are made."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def rule(self, body: str) -> str:
        """The name of a body: equal ones have the same."""
        return self._names.setdefault(body, f"r{len(self._names)}")

    @property
    def lines(self) -> list[str]:
        """All of them."""
        return [f"{name}: {body}" for body, name in self._names.items()]


class _Dsml(_Rules):
    """Calls of V3.2."""

    def call(self, function: Mapping[str, Any], *, free: bool) -> str:
        """A rule of one call of a tool."""
        name = str(function.get("name"))
        schema: Mapping[str, Any] = function.get("parameters") or {}
        if not is_name(name):
            raise BadGrammar(f"tool {name!r} cannot be called so: rename it")
        why_not = _why_not(schema)
        if why_not and function.get("strict"):
            raise BadGrammar(f"tool {name!r}: {why_not}, or leave strict out")
        is_open = schema.get("type") == "object" and schema.keys() <= {"type", "description"}
        is_any = free or why_not or is_open
        arguments = self._any_arguments() if is_any else self._arguments(schema)
        head, tail = f'<{DSML}invoke name="{name}">\n', f"\n</{DSML}invoke>\n"
        return self.rule(f"{_quoted(head)} {arguments} {_quoted(tail)}")

    def whole(self, calls: list[str], *, parallel: bool, is_free: bool) -> Iterator[str]:
        """The grammar's lines."""
        many = f"({' | '.join(calls)}){'+' if parallel else ''}"
        if is_free:
            yield f"start: TEXT | before {many} {_quoted(_CLOSE)}"
            yield f"before[suffix={_quoted(_OPEN)}]: TEXT"
            yield f"TEXT: /(?s:.*)/ & ~/(?s:.*)<{DSML}function_calls>(?s:.*)/"
        else:
            yield f"start: {_quoted(_OPEN)} {many} {_quoted(_CLOSE)}"
        yield from self.lines
        yield _RAW

    def _arguments(self, schema: Mapping[str, Any]) -> str:
        """Parameters in the schema's order: those that are not required may be left out."""
        shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        required = set(schema.get("required", ()))
        rest, first = '""', '""'
        for name, its in reversed(schema.get("properties", {}).items()):
            held = its if its is True else {**its, **shared}
            alone, behind = self._parameter("", name, held), self._parameter("\n", name, held)
            if name in required:
                rest, first = self.rule(f"{behind} {rest}"), self.rule(f"{alone} {rest}")
            else:
                first = self.rule(f"{alone} {rest} | {first}")
                rest = self.rule(f"{behind} {rest} | {rest}")
        return first

    def _parameter(self, before: str, name: str, schema: Any) -> str:
        """A parameter behind a text, which is one lexeme with its head: a line break alone is the
        beginning of a call's end, too, and the library does not go back."""
        head = f'{before}<{DSML}parameter name="{name}" string='
        as_text, as_json = _quoted(f'{head}"true">'), _quoted(f'{head}"false">')
        held: Mapping[str, Any] = {} if schema is True else schema
        texts = _texts(held)
        if texts is not None:
            ends = " | ".join(_quoted(text + _END) for text in texts)
            return f"{as_text} {self.rule(ends)}"
        says_nothing = not held.keys() - (_ABOUT - {"type"})
        if not says_nothing and held.get("type") == "string" and not held.keys() - _ABOUT:
            return f"{as_text} raw"
        value = f"{as_json} {self.rule(f'%json {_json(schema)} {_quoted(_END)}')}"
        return f"({as_text} raw | {value})" if says_nothing else value

    def _any_arguments(self) -> str:
        """Parameters of any name."""
        as_text, as_json = _quoted('" string="true">'), _quoted('" string="false">')
        value = f"({as_text} raw | {as_json} %json {_json(True)} {_quoted(_END)})"
        name = f'/[^"{DSML[0]}\\x00-\\x1f]+/'
        head = f'<{DSML}parameter name="'
        first = self.rule(f"{_quoted(head)} {name} {value}")
        behind = self.rule(f"{_quoted(chr(10) + head)} {name} {value}")
        return self.rule(f'"" | {first} {behind}*')


class _V31Calls(_Rules):
    """Calls of V3.1, whose marks are tokens."""

    def call(self, function: Mapping[str, Any], *, free: bool) -> str:
        """A rule of one call of a tool."""
        schema = None if free else function.get("parameters")
        value = f"%json {_json(schema or {'type': 'object'})}"
        name = _quoted(str(function.get("name")))
        return self.rule(f"{_V31['begin']} {name} {_V31['sep']} {value} {_V31['end']}")

    def whole(self, calls: list[str], *, parallel: bool, is_free: bool) -> Iterator[str]:
        """The grammar's lines."""
        many = f"{_V31['open']} ({' | '.join(calls)}){'+' if parallel else ''} {_V31['close']}"
        yield f"start: /(?s:.*)/ ({many})?" if is_free else f"start: {many}"
        yield from self.lines


def _why_not(schema: Mapping[str, Any]) -> str:
    """Why parameters cannot be written as the schema of arguments says, empty where they can."""
    if strange := sorted(schema.keys() - _OF_ARGUMENTS):
        return f"its parameters' schema says {strange[0]!r}; say that in the properties"
    if schema.get("type", "object") != "object":
        return 'its parameters are no object; write "type": "object"'
    properties = schema.get("properties", {})
    if missing := sorted(set(schema.get("required", ())) - properties.keys()):
        return f"{missing[0]!r} is required and no property; describe it"
    for name, its in properties.items():
        if not is_name(name):
            return f"parameter {name!r} cannot be written so; rename it"
        if its is not True and not isinstance(its, Mapping):
            return f"parameter {name!r} has no schema; write one"
        text = json.dumps(its)
        if '"$ref": "#"' in text or '"$ref": "#/properties' in text:
            return f"parameter {name!r} refers to what is no definition; move that to $defs"
    return ""


def _texts(schema: Mapping[str, Any]) -> list[str] | None:
    """The values of a schema of some texts, None for any other."""
    values: list[Any] = [schema["const"]] if "const" in schema else schema.get("enum", [])
    if not values or schema.keys() - _ABOUT - {"const", "enum"}:
        return None
    if not all(isinstance(value, str) and not holds_tag(value) for value in values):
        return None
    return values if schema.get("type", "string") == "string" else None


def _json(schema: Any) -> str:
    held = {} if schema is True else dict(schema)
    return json.dumps({**held, "x-guidance": JSON_OPTIONS}, ensure_ascii=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
