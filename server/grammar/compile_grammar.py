"""From a grammar to a matcher of `llguidance`, with limits. Knows no request and no process.

The library's limits count steps of some of its parts. They do not bound time: a mask of the regular
expression `(a{1000}){1000}` takes 2 s under them. What does is the process around this.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import llguidance
from llguidance import gbnf_to_lark

from lostwax.server.grammar.grammar import BadGrammar, Grammar
from lostwax.server.grammar.vocabulary import Vocabulary

if TYPE_CHECKING:  # it is in the library's stubs alone
    from llguidance._lib import JsonCompileOptions

_PLACE = re.compile(r"at (\d+)\(\d+\): (?:failed to compile JSON schema: )?")
"""Where the library finds a fault, in lines of the grammar."""
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
        source = _source(grammar)
    except BadGrammar:
        raise
    except Exception as error:  # a parser of the library, over anybody's text
        raise BadGrammar(shown(str(error))) from error
    matcher = llguidance.LLMatcher(vocabulary.tokenizer, source, log_level=0, limits=_LIMITS)
    if matcher.is_error():
        said = matcher.get_error()
        raise BadGrammar(_of_tools(said) if grammar.kind == "tools" else shown(said))
    return matcher


def _of_tools(message: str) -> str:
    """What the library says of a grammar that no client wrote, without its text."""
    place = _PLACE.match(message)
    if place is None:
        return shown(message)
    said, _, lines = message[place.end() :].partition("\n")
    is_of_answer = re.search(rf"^ *{place[1]} \| answer: ", lines, re.MULTILINE)
    return f"{'the answer' if is_of_answer else 'a tool'}'s schema: {shown(said)}"


def shown(message: str) -> str:
    """The first lines of what the library says, as one."""
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
            return matcher.grammar_from_json_schema(grammar.text, overrides=JSON_OPTIONS)
        case "regex":
            return matcher.grammar_from_regex(grammar.text)
        case "choice":
            choices = " | ".join(json.dumps(each) for each in json.loads(grammar.text))
            return matcher.grammar_from_lark(f"start: {choices}")
        case "lark" | "tools":
            return matcher.grammar_from_lark(grammar.text)
        case "ebnf":
            return matcher.grammar_from_lark(gbnf_to_lark.any_to_lark(grammar.text))
