"""Grammars of many tools: as many are held as there is room for; what counts is what is read."""

from __future__ import annotations

from typing import Any

import pytest
from grammar_vocabulary import raise_it
from written_calls import fits, written

from lostwax.server.formats import encoding_v31 as v31
from lostwax.server.grammar.grammar import MAX_TOOLS_BYTES, BadGrammar, Grammar
from lostwax.server.grammar.grammar_process import ENDED, GrammarProcess
from lostwax.server.grammar.messages import MAX_FRAME_BYTES, Compile, decode_request
from lostwax.server.grammar.tool_grammar import Format, tool_grammar

FORMATS: tuple[Format, ...] = ("deepseekv32", "deepseekv31")


def tool(number: int, *, strict: bool = False, name: str = "tool_that_does_one_thing") -> Any:
    """One whose schemas no other has."""
    properties = {
        "count": {"type": "integer", "minimum": 1, "maximum": 1000 + number},
        "places": {
            "type": "array",
            "items": {"type": "string", "pattern": f"^[A-Z]{{2}}-{number}$"},
            "description": "Where to look, as codes of a country and of a place.",
        },
        "how": {"anyOf": [{"type": "boolean"}, {"enum": ["fast", f"kind {number}"]}]},
    }
    schema = {"type": "object", "properties": properties, "required": ["count"]}
    function = {"name": f"{name}_{number}", "parameters": schema, "strict": strict}
    return {"type": "function", "function": function}


def read_bytes(grammar: Grammar) -> int:
    return len("".join([grammar.text, *(each.line for each in grammar.held)]).encode())


def call(format: Format, number: int, count: int) -> str:
    name = f"tool_that_does_one_thing_{number}"
    if format == "deepseekv32":
        return written((name, {"count": count}))
    arguments = f'{{"count": {count}}}'
    return f"{v31.CALLS}{v31.CALL}{name}{v31.SEPARATOR}{arguments}{v31.CALL_END}{v31.CALLS_END}"


def held(grammar: Grammar, number: int) -> bool:
    return any(f'"maximum": {1000 + number}' in each.schema for each in grammar.held)


@pytest.mark.parametrize("format", FORMATS)
def test_tools_are_held_while_there_is_room_and_the_others_are_free(format: Format) -> None:
    tools = [tool(number, strict=number == 399) for number in range(400)]
    grammar = tool_grammar(format, tools, "required")
    assert grammar is not None
    grammar.require_small()
    num_held = sum(held(grammar, number) for number in range(399))
    assert [held(grammar, number) for number in range(399)] == [n < num_held for n in range(399)]
    assert 60 < num_held < 399
    assert held(grammar, 399), "a strict one is, wherever it stands"
    one_more = read_bytes(grammar) / num_held
    assert MAX_TOOLS_BYTES - 12288 - one_more < read_bytes(grammar) <= MAX_TOOLS_BYTES


@pytest.mark.parametrize("format", FORMATS)
def test_a_large_tool_that_has_no_room_takes_none(format: Format) -> None:
    def large(number: int) -> Any:
        values = [f"a value of many, of {number}, that has the number {n}" for n in range(1200)]
        schema = {"type": "object", "properties": {"a": {"items": {"enum": values}}}}
        return {"name": f"f{number}", "parameters": schema}

    grammar = tool_grammar(format, [large(1), large(2), large(3), tool(1)], "required")
    assert grammar is not None
    grammar.require_small()
    assert sum("of 1," in each.schema for each in grammar.held) == 1
    assert not any("of 3," in each.schema or held(grammar, 1) for each in grammar.held)


def test_what_is_held_and_what_is_free_is_so_in_answers() -> None:
    tools = [tool(number) for number in range(300)]
    grammar = tool_grammar("deepseekv32", tools, "required")
    assert grammar is not None
    assert held(grammar, 0)
    assert not held(grammar, 299)
    assert fits(grammar, call("deepseekv32", 0, 7))
    assert not fits(grammar, call("deepseekv32", 0, 0))
    assert fits(grammar, call("deepseekv32", 299, 0))


@pytest.mark.parametrize("format", FORMATS)
def test_strict_tools_that_have_no_room_are_refused(format: Format) -> None:
    tools = [tool(number, strict=True) for number in range(400)]
    for choice in ("auto", "required"):
        with pytest.raises(BadGrammar, match="fewer tools, smaller schemas, or fewer that are st"):
            tool_grammar(format, tools, choice)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_told_of_who_is_never_refused(format: Format) -> None:
    grammar = tool_grammar(format, [tool(1), tool(2, strict=True)], "required")
    assert grammar is not None
    assert {bool(each.told) for each in grammar.held if held_by(each.schema, 1)} == {False}
    assert {bool(each.told) for each in grammar.held if held_by(each.schema, 2)} == {True}


def held_by(schema: str, number: int) -> bool:
    return f"{1000 + number}" in schema or f"-{number}$" in schema or f"kind {number}" in schema


@pytest.mark.parametrize("format", FORMATS)
def test_the_largest_grammar_of_tools_reaches_its_process(format: Format) -> None:
    """With the longest names, and of those the ones whose signs are longest when they are shown."""
    name = "\U000e0001" * 200
    largest, most = None, 400
    while largest is None:
        most -= 4
        try:
            tools = [tool(number, strict=True, name=name) for number in range(most)]
            largest = tool_grammar(format, tools, "auto")
        except BadGrammar:
            continue
    process = GrammarProcess(largest, raise_it)
    with process.begin() as its:
        frame = its.recv(MAX_FRAME_BYTES)
    assert decode_request(frame) == Compile(largest)
    process.end(ENDED)
