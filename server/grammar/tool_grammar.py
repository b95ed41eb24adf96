"""The grammar of an answer that calls tools, in the form that a model's encoder writes calls in.

Arguments are held to the tools' schemas, in the schemas' order. In DSML each is a parameter: a
string as it is, anything else, and a string of which the schema says more than its values, as JSON.
Where a schema cannot be held, arguments are free unless their tool is `strict`.
Knows no request and no HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import msgspec

from lostwax.server.formats.encoding_v32 import DSML, holds_tag, is_name
from lostwax.server.grammar.compile_grammar import JSON_OPTIONS
from lostwax.server.grammar.grammar import MAX_TOOLS_BYTES, BadGrammar, Grammar, Held
from lostwax.server.grammar.readable import readable
from lostwax.server.grammar.tool_schema import (
    ABOUT,
    DEFINITIONS,
    Definitions,
    further,
    require_form,
    why_not,
)

Format = Literal["deepseekv32", "deepseekv31"]
Choice = Literal["auto", "none", "required"] | Mapping[str, Any]
"""As OpenAI's `tool_choice`: a word, or `{"type": "function", "function": {"name": …}}`."""
_ABOUT = {"type", *ABOUT, *DEFINITIONS}
"""What says nothing of a string's form."""
_REMEDY = "take that out, or leave strict out"
_OPEN, _CLOSE = f"\n\n<{DSML}function_calls>\n", f"</{DSML}function_calls>"
_END = f"</{DSML}parameter>"
_NAME = f'[^"{DSML[0]}\\x00-\\x1f\\x7f\\x85\\u{{2028}}\\u{{2029}}]+'
"""Of a parameter, as a regular expression."""
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
"""Text up to the end of its parameter, without a tag of calls in it: not even content of an answer
may hold one, as readers take any for the beginning of a call, and read none behind a broken one."""


def tool_grammar(
    format: Format,
    tools: Sequence[Mapping[str, Any]],
    choice: Choice,
    *,
    parallel: bool = True,
    answer: Mapping[str, Any] | None = None,
) -> Grammar | None:
    """What an answer has to be, None where it is free.

    With `required` it is calls of any of the tools, with a name one call of that tool; without
    `parallel` there is one call. With `auto` the answer is free text that calls may follow, held to
    the schemas of tools that are `strict`; without such a tool it is free. With `auto` and the JSON
    schema of an `answer` it is either calls or that JSON.

    Raises BadGrammar where a strict tool's schema cannot be written as parameters, one has another
    form than JSON Schema, the choice names no tool, or the grammar grows too large.
    """
    functions = [cast("Mapping[str, Any]", tool.get("function", tool)) for tool in tools]
    if not isinstance(choice, str):
        functions, parallel = [_named(functions, choice)], False
    is_free = choice == "auto"
    is_held = answer is not None or any(each.get("strict") for each in functions)
    if choice == "none" or (is_free and not is_held):
        return None
    if not functions:
        raise BadGrammar("a call is asked for, and there is no tool; give tools")
    rules = _Dsml() if format == "deepseekv32" else _V31Calls()
    calls = [_call(rules, each, free=is_free and not each.get("strict")) for each in functions]
    if is_free and answer is not None:
        require_form(answer, "the answer")
        held = rules.held(readable(answer), "", "the answer's schema", "take that out")
        start = f"{rules.calls(calls, parallel=parallel)} | {held}"
    elif is_free:
        start = rules.text_and_calls(calls, parallel=parallel)
    else:
        start = rules.calls(calls, parallel=parallel)
    lines = [f"start: {start}", *rules.lines]
    return Grammar("tools", "\n".join(lines) + "\n", rules.all_held)


def _named(functions: Sequence[Mapping[str, Any]], choice: Mapping[str, Any]) -> Mapping[str, Any]:
    name = choice.get("function", choice).get("name")
    for function in functions:
        if function.get("name") == name:
            return function
    raise BadGrammar(f"{name!r} is asked for, which is none of the tools; name one of them")


def _call(rules: _Dsml | _V31Calls, function: Mapping[str, Any], *, free: bool) -> str:
    try:
        if not free:
            require_form(function.get("parameters") or {})
    except BadGrammar as error:
        raise BadGrammar(f"tool {function.get('name')!r}: {error}") from error
    return rules.call(function, free=free)


class _Rules:
    """Rules of a grammar in Lark's form, as they are made, of which there may be so many bytes."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._held: dict[tuple[str, str, str], Held] = {}
        self._num_bytes = 0

    def rule(self, body: str, *, is_lexeme: bool = False) -> str:
        """The name of a body: equal ones have the same. Raises BadGrammar where all are too much:
        what is not going to be followed is not made to its end."""
        if body not in self._names:
            self._count(body)
            self._names[body] = f"{'T' if is_lexeme else 'r'}{len(self._names)}"
        return self._names[body]

    def held(
        self, schema: Any, end: str, whose: str, remedy: str = _REMEDY, *, free: str = ""
    ) -> str:
        """The name of a rule of JSON, which has none of `rule`'s names: as a `Held` says."""
        said = _json(schema)
        key = (said, end, free)
        if key not in self._held:
            its = Held(f"j{len(self._held)}", said, end, whose, remedy, free)
            self._count(*msgspec.structs.astuple(its))
            self._held[key] = its
        return self._held[key].rule

    @property
    def all_held(self) -> tuple[Held, ...]:
        """All rules of JSON."""
        return tuple(self._held.values())

    def _count(self, *texts: str) -> None:
        self._num_bytes += sum(len(text.encode(errors="replace")) for text in texts)
        if self._num_bytes > MAX_TOOLS_BYTES:
            raise BadGrammar(
                f"the tools' schemas make a grammar of more than {MAX_TOOLS_BYTES} bytes; send"
                " fewer tools, or smaller schemas"
            )

    @property
    def lines(self) -> list[str]:
        """All but those of JSON."""
        return [f"{name}: {body}" for body, name in self._names.items()]


class _Value(NamedTuple):
    """A parameter's value with its end, as a rule: what it is as a text and as JSON, empty where
    it is none."""

    text: str
    json: str


class _Owner(NamedTuple):
    """Whose arguments are written."""

    name: str
    is_strict: bool

    def __str__(self) -> str:
        return f"tool {self.name!r}"


class _Dsml(_Rules):
    """Calls of V3.2."""

    def call(self, function: Mapping[str, Any], *, free: bool) -> str:
        """A rule of one call of a tool."""
        name = str(function.get("name"))
        schema: Mapping[str, Any] = function.get("parameters") or {}
        if not is_name(name):
            raise BadGrammar(f"tool {name!r} cannot be called so: rename it")
        reason = "" if free else why_not(schema)
        if reason and function.get("strict"):
            raise BadGrammar(f"tool {name!r}: {reason}, or leave strict out")
        owner = _Owner(name, bool(function.get("strict")))
        arguments = self._arguments({"type": "object"} if free or reason else schema, owner)
        head, tail = f'<{DSML}invoke name="{name}">\n', f"\n</{DSML}invoke>\n"
        return self.rule(f"{_quoted(head)} {arguments} {_quoted(tail)}")

    def calls(self, calls: list[str], *, parallel: bool) -> str:
        """A body: an answer that is calls."""
        return f"{_quoted(_OPEN)} {_many(calls, parallel)} {_quoted(_CLOSE)}"

    def text_and_calls(self, calls: list[str], *, parallel: bool) -> str:
        """A body: text, and calls if there are any."""
        return f"TEXT | before {_many(calls, parallel)} {_quoted(_CLOSE)}"

    @property
    def lines(self) -> list[str]:
        """All rules but the first."""
        text = [f"before[suffix={_quoted(_OPEN)}]: TEXT", "TEXT: RAW"]
        return [*super().lines, *text, _RAW]

    def _arguments(self, schema: Mapping[str, Any], owner: _Owner) -> str:
        """Parameters in the schema's order: those that are not required may be left out. Others
        come behind them."""
        definitions = Definitions(schema)
        required = set(schema.get("required", ()))
        values: dict[str, _Value] = {}
        """Those of parameters by what their schemas say, or equal ones would be written out."""
        listed, more = schema.get("properties", {}), further(schema)
        rest, first = '""', '""'
        if more is not False:
            value = self._value(more, definitions, f"{owner}, 'additionalProperties'", owner)
            alone, behind = (self._other(before, listed, value) for before in ("", r"\n"))
            rest = self.rule(f"({behind})*")
            first = self.rule(f'"" | {alone} {rest}')
        for name, its in reversed(listed.items()):
            said = json.dumps(its)
            if said not in values:
                whose = f"{owner}, parameter {name!r}"
                values[said] = self._value(its, definitions, whose, owner)
            alone, behind = (
                self._parameter("", name, values[said]),
                self._parameter("\n", name, values[said]),
            )
            if name in required:
                rest, first = self.rule(f"{behind} {rest}"), self.rule(f"{alone} {rest}")
            else:
                first = self.rule(f"{alone} {rest} | {first}")
                rest = self.rule(f"{behind} {rest} | {rest}")
        return first

    def _parameter(self, before: str, name: str, value: _Value) -> str:
        """A parameter behind a text, which is one lexeme with its head: a line break alone is the
        beginning of a call's end, too, and the library does not go back."""
        head = f'{before}<{DSML}parameter name="{name}" string='
        return _told(_quoted(f'{head}"true">'), _quoted(f'{head}"false">'), value)

    def _other(self, before: str, listed: Iterable[str], value: _Value) -> str:
        """A parameter of any name but those that are listed, behind what stands in a regular
        expression before it: with its name its head is one lexeme, as theirs are."""
        heads = dict[bool, str]()
        for is_string in (True, False):
            said = json.dumps(is_string)
            around = f'{before}<{DSML}parameter name="', f'" string="{said}">'
            head = f"/{_NAME.join(around)}/"
            names = "|".join(re.escape(name).replace("/", r"\/") for name in sorted(listed))
            head += f" & ~/{f'({names})'.join(around)}/" if names else ""
            heads[is_string] = self.rule(head, is_lexeme=True)
        return _told(heads[True], heads[False], value)

    def _value(self, its: Any, definitions: Definitions, whose: str, owner: _Owner) -> _Value:
        held: Mapping[str, Any] = {} if its is True else its
        texts = _texts(held)
        if texts is not None:
            return _Value(self.rule(" | ".join(_quoted(text + _END) for text in texts)), "")
        says_nothing = not held.keys() - (_ABOUT - {"type"})
        if not says_nothing and held.get("type") == "string" and not held.keys() - _ABOUT:
            return _Value("raw", "")
        if says_nothing:
            return _Value("raw", self._any_json())
        free = "" if owner.is_strict else self._any_json()
        try:
            schema = readable(definitions.with_reached(its))
        except BadGrammar as error:
            if owner.is_strict:
                raise BadGrammar(f"{whose}: {error}, or leave strict out") from error
            return _Value("", free)
        return _Value("", self.held(schema, _quoted(_END), whose, free=free))

    def _any_json(self) -> str:
        return self.held(readable(True), _quoted(_END), "any JSON")


class _V31Calls(_Rules):
    """Calls of V3.1, whose marks are tokens."""

    def call(self, function: Mapping[str, Any], *, free: bool) -> str:
        """A rule of one call of a tool."""
        schema: Mapping[str, Any] = {} if free else function.get("parameters") or {}
        owner = _Owner(str(function.get("name")), bool(function.get("strict")))
        value = any_object = self.held({"type": "object"}, "", "any object")
        if schema:
            loose = "" if owner.is_strict else any_object
            value = self.held({"type": "object", **schema}, "", str(owner), free=loose)
        name = _quoted(owner.name)
        return self.rule(f"{_V31['begin']} {name} {_V31['sep']} {value} {_V31['end']}")

    def calls(self, calls: list[str], *, parallel: bool) -> str:
        """A body: an answer that is calls."""
        return f"{_V31['open']} {_many(calls, parallel)} {_V31['close']}"

    def text_and_calls(self, calls: list[str], *, parallel: bool) -> str:
        """A body: text, and calls if there are any."""
        return f"TEXT ({self.calls(calls, parallel=parallel)})?"

    @property
    def lines(self) -> list[str]:
        """All rules but the first."""
        marks = "|".join(_V31.values())  # spelled in letters
        return [*super().lines, f"TEXT: /(?s:.*)/ & ~/(?s:.*)({marks})(?s:.*)/"]


def _told(as_text: str, as_json: str, value: _Value) -> str:
    """A parameter of these heads."""
    if not value.json:
        return f"{as_text} {value.text}"
    alone = f"{as_json} {value.json}"
    return f"({as_text} {value.text} | {alone})" if value.text else alone


def _many(calls: list[str], parallel: bool) -> str:
    return f"({' | '.join(calls)}){'+' if parallel else ''}"


def _texts(schema: Mapping[str, Any]) -> list[str] | None:
    """The values of a schema of some texts, None for any other."""
    values: Any = [schema["const"]] if "const" in schema else schema.get("enum", [])
    if not isinstance(values, list) or not values or schema.keys() - _ABOUT - {"const", "enum"}:
        return None
    texts = cast("list[Any]", values)
    if not all(isinstance(value, str) and not holds_tag(value) for value in texts):
        return None
    return texts if schema.get("type", "string") == "string" else None


def _json(schema: Mapping[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": JSON_OPTIONS}, ensure_ascii=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
