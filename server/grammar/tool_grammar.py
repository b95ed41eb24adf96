"""The grammar of an answer that calls tools, in the form that a model's encoder writes calls in.

Arguments are held to the tools' schemas, in the schemas' order. In DSML each is a parameter: a
string as it is, anything else, and a string of which the schema says more than its values, as JSON.
Where a schema cannot be held, arguments are free unless their tool is `strict`; so they are where
the schemas of all tools would make too large a grammar.
Knows no request and no HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

from lostwax.server.formats.encoding_v32 import DSML, holds_tag, is_name
from lostwax.server.grammar.grammar import BadGrammar, Grammar
from lostwax.server.grammar.readable import readable
from lostwax.server.grammar.tool_rules import Function, Owner, Rules
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
    functions = [cast("Function", tool.get("function", tool)) for tool in tools]
    if not isinstance(choice, str):
        functions, parallel = [_named(functions, choice)], False
    is_free = choice == "auto"
    is_held = answer is not None or any(each.get("strict") for each in functions)
    if choice == "none" or (is_free and not is_held):
        return None
    if not functions:
        raise BadGrammar("a call is asked for, and there is no tool; give tools")
    rules = _Dsml() if format == "deepseekv32" else _V31Calls()
    calls = rules.all_calls(functions, is_free=is_free)
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


def _named(functions: Sequence[Function], choice: Mapping[str, Any]) -> Function:
    name = choice.get("function", choice).get("name")
    for function in functions:
        if function.get("name") == name:
            return function
    raise BadGrammar(f"{name!r} is asked for, which is none of the tools; name one of them")


class _Value(NamedTuple):
    """A parameter's value with its end, as a rule: what it is as a text and as JSON, empty where
    it is none."""

    text: str
    json: str


class _Dsml(Rules):
    """Calls of V3.2."""

    def _arguments_of(self, function: Function, *, free: bool) -> str:
        owner = Owner(str(function.get("name")), bool(function.get("strict")))
        schema: Mapping[str, Any] = function.get("parameters") or {}
        if not is_name(owner.name):
            raise BadGrammar(f"tool {owner.name!r} cannot be called so: rename it")
        reason = "" if free else why_not(schema)
        if reason and owner.is_strict:
            raise BadGrammar(f"{owner.part()}: {reason}, or leave strict out")
        return self._parameters({"type": "object"} if free or reason else schema, owner)

    def _body(self, name: str, arguments: str) -> str:
        head, tail = f'<{DSML}invoke name="{name}">\n', f"\n</{DSML}invoke>\n"
        return f"{_quoted(head)} {arguments} {_quoted(tail)}"

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

    def _parameters(self, schema: Mapping[str, Any], owner: Owner) -> str:
        """Parameters in the schema's order: those that are not required may be left out. Others
        come behind them."""
        definitions = Definitions(schema)
        required = set(schema.get("required", ()))
        values: dict[str, _Value] = {}
        """Those of parameters by what their schemas say, or equal ones would be written out."""
        listed, more = schema.get("properties", {}), further(schema)
        rest, first = '""', '""'
        if more is not False:
            whose = owner.part("additionalProperties")
            value = self._value(more, definitions, whose, owner)
            alone, behind = (self._other(before, listed, value) for before in ("", r"\n"))
            rest = self.rule(f"({behind})*")
            first = self.rule(f'"" | {alone} {rest}')
        for name, its in reversed(listed.items()):
            said = json.dumps(its)
            if said not in values:
                whose = owner.part(name, "parameter ")
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

    def _value(self, its: Any, definitions: Definitions, whose: str, owner: Owner) -> _Value:
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
        remedy = _REMEDY if owner.is_strict else ""
        return _Value("", self.held(schema, _quoted(_END), whose, remedy, free=free))

    def _any_json(self) -> str:
        return self.held(readable(True), _quoted(_END), "")


class _V31Calls(Rules):
    """Calls of V3.1, whose marks are tokens."""

    def _arguments_of(self, function: Function, *, free: bool) -> str:
        schema: Mapping[str, Any] = {} if free else function.get("parameters") or {}
        owner = Owner(str(function.get("name")), bool(function.get("strict")))
        any_object = self.held({"type": "object"}, "", "")
        if not schema:
            return any_object
        held = {"type": "object", **schema}
        if owner.is_strict:
            return self.held(held, "", owner.part(), _REMEDY)
        return self.held(held, "", "", free=any_object)

    def _body(self, name: str, arguments: str) -> str:
        called = f"{_V31['begin']} {_quoted(name)} {_V31['sep']}"
        return f"{called} {arguments} {_V31['end']}"

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


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
