"""From a grammar to a matcher of `llguidance`, with limits. Knows no request and no process.

The library's limits count steps of some of its parts. They do not bound time: a mask of the regular
expression `(a{1000}){1000}` takes 2 s under them. What does is the process around this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import llguidance
from llguidance import gbnf_to_lark

from lostwax.server.grammar.grammar import BadGrammar, Grammar, Held
from lostwax.server.grammar.tool_schema import DEFINITIONS
from lostwax.server.grammar.vocabulary import Vocabulary

if TYPE_CHECKING:  # it is in the library's stubs alone
    from llguidance._lib import JsonCompileOptions

_PLACE = re.compile(r"at \d+\(\d+\): ")
"""Where the library finds a fault, in lines of a grammar that no client wrote."""
_BAD_PATTERN = re.compile(r"regex parse error:\n *([^\n]*)\n.*?error: ([^\n]*)", re.DOTALL)
"""The pattern, signs under it, and what is wrong with it."""
MAX_SHOWN_CHARS = 300
"""Of what the library says: it quotes the grammar."""
JSON_OPTIONS: JsonCompileOptions = {
    "lenient": False,
    "coerce_one_of": False,
    "whitespace_pattern": r"[ \n\r\t]{1,20}",
}
"""What is not held is refused, whatever the schema's own `x-guidance` asks for. Between values are
few blanks: a model that repeats them must come to an end."""
_LIMITS = llguidance.LLParserLimits(
    initial_lexer_fuel=10_000_000,
    step_lexer_fuel=1_000_000,
    step_max_items=200_000,
    max_items_in_row=50_000,
    max_lexer_states=50_000,
    max_grammar_size=500_000,
    verbose_errors=False,
)


def compile_grammar(grammar: Grammar, vocabulary: Vocabulary) -> llguidance.LLMatcher:
    """A matcher at the beginning of an answer. Raises BadGrammar."""
    try:
        return _compiled(grammar, vocabulary)
    except BadGrammar:
        raise
    except Exception as error:  # a parser of the library, over anybody's text
        raise BadGrammar(shown(str(error))) from error


def _compiled(grammar: Grammar, vocabulary: Vocabulary) -> llguidance.LLMatcher:
    matcher = _matcher(_source(grammar), vocabulary)
    if matcher.is_error() and grammar.kind == "tools":
        freed = _freed(grammar.held, vocabulary)
        matcher = _matcher(_of_tools(grammar, freed), vocabulary)
    if matcher.is_error():
        said = matcher.get_error()
        if grammar.kind == "tools":
            said = _PLACE.sub("", said.partition("\n")[0])
        raise BadGrammar(shown(said))
    return matcher


def _matcher(source: str, vocabulary: Vocabulary) -> llguidance.LLMatcher:
    return llguidance.LLMatcher(vocabulary.tokenizer, source, log_level=0, limits=_LIMITS)


def _freed(held: Iterable[Held], vocabulary: Vocabulary) -> frozenset[str]:
    """The rules whose schemas the library does not hold, and that may be free. BadGrammar where one
    may not be. Each is tried alone: of the whole grammar the library tells the first fault, and a
    line of a text that no client knows."""
    freed = set[str]()
    for each in held:
        said = _fault(each.schema, vocabulary)
        if said and not each.free:
            whose = each.whose + _part(each.schema, said, vocabulary)
            raise BadGrammar(f"{whose}: {shown(said)}; {each.remedy}")
        if said:
            freed.add(each.rule)
    return frozenset(freed)


def _fault(schema: str, vocabulary: Vocabulary) -> str:
    """Why the library does not hold a schema, empty where it does."""
    matcher = _matcher(_json(schema), vocabulary)
    return matcher.get_error() if matcher.is_error() else ""


def _part(schema: str, said: str, vocabulary: Vocabulary) -> str:
    """The property that has the fault alone, where one has."""
    whole: dict[str, Any] = json.loads(schema)
    own = whole.get("properties")
    around = {key: whole[key] for key in (*DEFINITIONS, "x-guidance") if key in whole}
    properties = cast("dict[str, Any]", own) if isinstance(own, dict) else {}
    for name, its in properties.items():
        if isinstance(its, dict) and _fault(json.dumps({**its, **around}), vocabulary) == said:
            return f", in {name!r}"
    return ""


def _of_tools(grammar: Grammar, freed: frozenset[str] = frozenset()) -> str:
    """With its rules of JSON, but for those that are `freed`."""
    lines = [each.freed if each.rule in freed else each.line for each in grammar.held]
    return llguidance.LLMatcher.grammar_from_lark(grammar.text + "".join(lines))


def _json(schema: str) -> str:
    return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS)


def shown(message: str) -> str:
    """The first lines of what the library says, as one; of a pattern what is wrong with it, which
    it says behind it."""
    if bad := _BAD_PATTERN.search(message):
        return f"{bad[2]}, in the pattern {bad[1][:MAX_SHOWN_CHARS]!r}"
    said = " ".join(message.split("<state>")[0].split("<non-verbose/>")[0].split())
    if not said or said.startswith("NoExtension"):
        return "no text fits it, or none goes on from here"
    return said[:MAX_SHOWN_CHARS]


def _source(grammar: Grammar) -> str:
    matcher = llguidance.LLMatcher
    match grammar.kind:
        case "json_object":
            return matcher.grammar_from_json_schema('{"type": "object"}', overrides=JSON_OPTIONS)
        case "json_schema":
            return _json(grammar.text)
        case "regex":
            return matcher.grammar_from_regex(grammar.text)
        case "choice":
            choices = " | ".join(json.dumps(each) for each in json.loads(grammar.text))
            return matcher.grammar_from_lark(f"start: {choices}")
        case "lark":
            return matcher.grammar_from_lark(grammar.text)
        case "tools":
            return _of_tools(grammar)
        case "ebnf":
            return matcher.grammar_from_lark(gbnf_to_lark.any_to_lark(grammar.text))
