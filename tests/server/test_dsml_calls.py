"""V3.2's tool calls: which texts are calls, what is passed on meanwhile, and what stays text."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from call_texts import CLOSE, DSML_PIECES, INVOKE_END, OPEN, block, invoke, parameter, read
from hypothesis import given
from hypothesis import strategies as st

from lostwax.server.formats.encoding_v32 import DSML, EOS, encode_messages
from lostwax.server.formats.message import CallDelta, MessageDelta, whole_message
from lostwax.server.formats.parse_v32 import ParseError, parse_completion
from lostwax.server.formats.readers import reader_of

BROKEN_HEAD = f'<{DSML}invoke name="f">\n'


def parse(text: str, **options: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """Content, calls with their arguments, and what was malformed."""
    reader = reader_of("deepseekv32", thinks=False, **options)
    message = whole_message(reader, text)
    assert reader.num_calls == len(message.calls)
    assert [call.index for call in message.calls] == list(range(reader.num_calls))
    calls = [(str(call.name), json.loads(call.arguments)) for call in message.calls]
    return message.content, calls, reader.broken


WHOLE: dict[str, tuple[str, str, list[tuple[str, Any]]]] = {
    "no call": ("plain\n\n", "plain\n\n", []),
    "one": (f"Hi{block(invoke('f', parameter('a', 'x')))}", "Hi", [("f", {"a": "x"})]),
    "no arguments": (block(invoke("f")), "", [("f", {})]),
    "two": (
        block(invoke("f", parameter("a", "1", False)), invoke("g")),
        "",
        [("f", {"a": 1}), ("g", {})],
    ),
    "two blocks": (block(invoke("f")) + block(invoke("g")), "", [("f", {}), ("g", {})]),
    "bare": (f"Hi\n{invoke('f')}\n{invoke('g')}\n", "Hi\n", [("f", {}), ("g", {})]),
    "bare behind a blank line": (f"Hi\n\n{invoke('f')}", "Hi", [("f", {})]),
    "no white space": (
        f'{OPEN}<{DSML}invoke name="f">{parameter("a", "x")}{INVOKE_END}{CLOSE}',
        "",
        [("f", {"a": "x"})],
    ),
    "empty element": (f'{OPEN}<{DSML}invoke name="f"/>{CLOSE}', "", [("f", {})]),
    "a JSON object": (
        f'{OPEN}{BROKEN_HEAD} {{"a": {{"b": "{CLOSE}"}}}} {INVOKE_END}{CLOSE}',
        "",
        [("f", {"a": {"b": CLOSE}})],
    ),
    "an empty JSON object": (f"{OPEN}{BROKEN_HEAD}{{}}{INVOKE_END}{CLOSE}", "", [("f", {})]),
    "text around": (
        f"a{block(invoke('f'))}\n\nb{block(invoke('g'))} c",
        "a\n\nb c",
        [("f", {}), ("g", {})],
    ),
    "text and white space behind": (f"{block(invoke('f'))}\nx \n", "\nx \n", [("f", {})]),
    "a backslash in a name": (
        block(invoke("f", parameter("a\\b", "x"))),
        "",
        [("f", {"a\\b": "x"})],
    ),
    "white space behind": (f"a{block(invoke('f'))}\n \n", "a", [("f", {})]),
    "more blank lines": (f"a\n\n\n\n{block(invoke('f'))}", "a\n\n\n\n", [("f", {})]),
    "unclosed block": (f"{OPEN}\n{invoke('f')}\n", "", [("f", {})]),
    "characters": (
        block(invoke("é-1.x", parameter("ключ", '"\\\n\t\x01</<🙂'))),
        "",
        [("é-1.x", {"ключ": '"\\\n\t\x01</<🙂'})],
    ),
    "spaces are kept": (block(invoke("f", parameter("a", "\n x "))), "", [("f", {"a": "\n x "})]),
    "an empty string": (block(invoke("f", parameter("a", ""))), "", [("f", {"a": ""})]),
    "nested JSON": (
        block(invoke("f", parameter("a", ' {"b": [1.5e3, {"c": null}], "d": "é"} ', False))),
        "",
        [("f", {"a": {"b": [1500.0, {"c": None}], "d": "é"}})],
    ),
    "a JSON string": (
        block(invoke("f", parameter("a", '"\\u003c"', False))),
        "",
        [("f", {"a": "<"})],
    ),
    "the start of a mark": (f"a <{DSML[0]}b</", f"a <{DSML[0]}b</", []),
    "a name without its tag": (f"the {DSML} mark", f"the {DSML} mark", []),
}


@pytest.mark.parametrize("name", WHOLE)
def test_calls_and_the_text_around_them(name: str) -> None:
    text, content, calls = WHOLE[name]
    assert parse(text) == (content, calls, "")


MALFORMED = {
    f"{OPEN}\n{CLOSE}": "a block of calls holds none",
    f"{OPEN}\nso": "a block of calls holds something else",
    f"{OPEN}\n{OPEN}": "a block of calls holds something else",
    f"<{DSML}other>": "no call begins with this mark",
    CLOSE: "no call begins with this mark",
    INVOKE_END: "no call begins with this mark",
    parameter("a", "x"): "no call begins with this mark",
    f'{OPEN}\n<{DSML}invoke name="">\n{INVOKE_END}{CLOSE}': "a call names no tool",
    f'{OPEN}\n<{DSML}invoke name="a\nb">': "the name of a call breaks off",
    f'{OPEN}\n<{DSML}invoke name="{DSML}">': "the name of a call breaks off, or holds",
    f'{OPEN}\n<{DSML}invoke name="f" id="1">': "the call of 'f' has more than a name",
    f"{OPEN}\n{BROKEN_HEAD}so": "the call of 'f' holds something else than parameters",
    f"{OPEN}\n{BROKEN_HEAD}{invoke('g')}": "the call of 'f' holds something else than parameters",
    block(invoke("f", parameter("a", "1"), "x")): "the call of 'f' holds something else",
    block(invoke("f", parameter("a", "1") + "{}")): "the call of 'f' holds something else",
    block(
        invoke("f", parameter("a", "1"), parameter("a", "2"))
    ): "parameter 'a' of 'f' stands twice",
    block(invoke("f", parameter("a", "x", False))): "parameter 'a' of 'f' is no JSON",
    block(invoke("f", parameter("a", "", False))): "parameter 'a' of 'f' is no JSON",
    block(invoke("f", parameter("a", "1 2", False))): "parameter 'a' of 'f' is no JSON",
    block(invoke("f", parameter("a", "[1", False))): "parameter 'a' of 'f' is no JSON",
    block(invoke("f", parameter("a", "NaN", False))): "parameter 'a' of 'f' is no JSON",
    block(invoke("f", parameter("a", '1, "b": 2', False))): "parameter 'a' of 'f' is no JSON",
    block(invoke("f", parameter("a", "{}}", False))): "parameter 'a' of 'f' is no JSON",
    block(invoke("f", parameter("a", '{"k": 1, "k": 2}', False))): "a key stands twice",
    block(invoke("f", parameter("a", "[" * 100_000 + "]" * 100_000, False))): "nested too deeply",
    block(
        invoke("f", parameter("a", f"x{OPEN}"))
    ): "a tag of the calls stands in parameter 'a' of 'f'",
    block(
        invoke("f", parameter("a", f"x{INVOKE_END}"))
    ): "a tag of the calls stands in parameter 'a'",
    block(
        invoke("f", f'<{DSML}parameter name="a">1')
    ): "parameter 'a' of 'f' says not whether it is",
    block(invoke("f", f'<{DSML}parameter name="a" string="maybe">1')): "says not whether it is",
    block(
        invoke("f", f'<{DSML}parameter name="{DSML}" string="true">1')
    ): "the name of a parameter",
    f"{OPEN}{BROKEN_HEAD}{{]": "the arguments of 'f' are no JSON object",
    f'{OPEN}{BROKEN_HEAD}{{"a": 1, "a": 2}}{INVOKE_END}': "a key stands twice",
    f"{OPEN}{BROKEN_HEAD}{{}} x": "the call of 'f' holds more than its JSON object",
}
CUT_OFF = (
    f"{OPEN}", f"{OPEN}\n", f"{OPEN}\n<{DSML}inv", f'{OPEN}\n<{DSML}invoke name="f', BROKEN_HEAD,
    f"{BROKEN_HEAD}<", f'{BROKEN_HEAD}<{DSML}parameter name="a" string="true">so',
    f'{BROKEN_HEAD}<{DSML}parameter name="a" string="false">[1, 2]', f'{BROKEN_HEAD}{{"a": 1',
    f"{BROKEN_HEAD}{{}}", block(invoke("f", parameter("a", "x")))[: -len(CLOSE) - 3],
)  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_call_is_text_and_no_call(text: str) -> None:
    content, calls, broken = parse(f"Hi{text} and more")
    assert (content, calls) == (f"Hi{text} and more", [])
    assert MALFORMED[text] in broken


@pytest.mark.parametrize("text", MALFORMED)
def test_calls_before_a_malformed_one_stand_and_those_behind_are_text(text: str) -> None:
    before = block(invoke("f", parameter("a", "1")))
    content, calls, broken = parse(f"Hi{before}\n{text}{before}")
    assert (content, calls) == (f"Hi\n{text}{before}", [("f", {"a": "1"})])
    assert MALFORMED[text] in broken


@pytest.mark.parametrize("text", CUT_OFF)
def test_a_call_that_is_cut_off_is_text_and_no_call(text: str) -> None:
    assert parse(f"Hi\n\n{text}") == (f"Hi\n\n{text}", [], "the answer ends inside a call")


def test_a_block_that_is_cut_off_in_its_end_shows_what_is_there_of_it() -> None:
    end = f"\n{CLOSE[:-3]}"
    assert parse(f"Hi{block(invoke('f'))[:-3]}") == (
        f"Hi{end}",
        [("f", {})],
        "the answer ends inside a call",
    )


def test_the_malformed_one_of_a_block_is_text_alone() -> None:
    bad = invoke("g", parameter("b", "x", False))
    content, calls, _ = parse(f"Hi{block(invoke('f'), bad)}")
    assert (content, calls) == (f"Hi\n{bad}\n{CLOSE}", [("f", {})])


def test_long_names_are_shown_in_part() -> None:
    _, _, broken = parse(block(invoke("f" * 1000, parameter("a", "x", False))))
    assert len(broken) < 200


def test_a_tool_that_was_not_offered_is_text() -> None:
    text = block(invoke("g", parameter("a", "x")))
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert parse(text, tools=tools) == (text, [], "the tool 'g' was not offered")
    assert parse(text, tools=[]) == (text, [], "the tool 'g' was not offered")
    assert parse(text, tools=[*tools, {"name": "g"}])[1] == [("g", {"a": "x"})]
    assert parse(text)[1] == [("g", {"a": "x"})]


def test_a_tool_that_was_not_offered_is_never_told_of() -> None:
    reader = reader_of("deepseekv32", thinks=False, tools=[{"name": "f"}])
    assert read(reader, list(block(invoke("g", parameter("a", "x"))))).calls == []


def test_a_call_outside_a_block_is_text_where_only_blocks_count() -> None:
    content, calls, broken = parse(f"Hi{invoke('f')}", bare=False)
    assert (content, calls) == (f"Hi{invoke('f')}", [])
    assert broken == "no call begins with this mark"
    assert parse(block(invoke("f")), bare=False)[1] == [("f", {})]


def test_arguments_stream_while_they_come() -> None:
    reader = reader_of("deepseekv32", thinks=False)
    assert not reader.push(f'Hi\n\n{OPEN}\n<{DSML}invoke name="f"').calls
    assert reader.push(">\n").calls == [CallDelta(0, "f")]
    head = f'<{DSML}parameter name="a" string="true">'
    assert reader.push(head).calls == [CallDelta(0, None, '{"a": "')]
    assert reader.push('öne "').calls == [CallDelta(0, None, 'öne \\"')]
    assert reader.push("two<").calls == [CallDelta(0, None, "two")]
    assert reader.push("/").calls == []
    assert reader.push(f"{DSML}parameter>").calls == [CallDelta(0, None, '"')]
    head = f'<{DSML}parameter name="b" string="false">'
    assert reader.push(f"\n{head}[1, ").calls == [CallDelta(0, None, ', "b": [1, ')]
    assert reader.push("2").calls == [CallDelta(0, None, "2")]
    assert reader.push(f"]</{DSML}parameter>\n").calls == [CallDelta(0, None, "]")]
    assert reader.num_calls == 0
    assert reader.push(f"{INVOKE_END}\n").calls == [CallDelta(0, None, "}")]
    assert reader.num_calls == 1
    assert reader.push(f'<{DSML}invoke name="g"/>').calls == [CallDelta(1, "g", "{}")]
    assert reader.finish() == MessageDelta()


def test_text_is_given_at_once_but_for_what_may_become_a_mark() -> None:
    reader = reader_of("deepseekv32", thinks=False)
    assert reader.push("Hello").content == "Hello"
    assert reader.push("\n\n\n").content == "\n"
    assert reader.push("<").content == ""
    assert reader.push("b>").content == "\n\n<b>"
    assert reader.push("a <").content == "a "
    assert reader.finish().content == "<"


@pytest.mark.parametrize(
    "value", ["{1}", "1}", '"a", "b": 1}', "[1]]", '{"a": 1}}', "truer", "01", "1}{", '{"a": 1, }']
)
@pytest.mark.parametrize("is_body", [False, True])
def test_what_was_passed_on_of_a_malformed_call_is_never_whole(value: str, is_body: bool) -> None:
    """A client that reads the arguments of a call that never ended must not take them for any."""
    call = (
        f"{BROKEN_HEAD}{value}{INVOKE_END}"
        if is_body
        else invoke("f", parameter("k", value, False))
    )
    reader = reader_of("deepseekv32", thinks=False)
    message = read(reader, list(block(call)))
    assert reader.num_calls == 0
    assert message.content == block(call)
    for given_call in message.calls:
        with pytest.raises(ValueError, match=r"."):
            json.loads(given_call.arguments or "no")


@pytest.mark.parametrize("name", ["cut off", "broken value"])
def test_the_malformed_call_has_the_index_behind_the_whole_ones(name: str) -> None:
    reader = reader_of("deepseekv32", thinks=False)
    message = read(reader, DSML_PIECES[name])
    assert [call.index for call in message.calls] == list(range(reader.num_calls + 1))


@pytest.mark.parametrize("is_string", [True, False])
def test_a_long_argument_costs_its_length(is_string: bool) -> None:
    """Twice as long takes twice as long, token by token: no text is gone over again."""

    def seconds(count: int) -> float:
        value = "ab\n" * count if is_string else "[" + "1, " * count + "2]"
        pieces = [
            f'{OPEN}{BROKEN_HEAD}<{DSML}parameter name="a" string="{str(is_string).lower()}">'
        ]
        pieces += [value[at : at + 4] for at in range(0, len(value), 4)]
        pieces.append(f"</{DSML}parameter>{INVOKE_END}{CLOSE}")
        reader = reader_of("deepseekv32", thinks=False)
        begin = time.process_time()
        message = read(reader, pieces)
        taken = time.process_time() - begin
        assert len(json.loads(message.calls[0].arguments)["a"]) in (len(value), count + 1)
        return taken

    assert min(seconds(40_000) for _ in range(3)) < 8 * min(seconds(10_000) for _ in range(3))


def test_many_calls_at_once_cost_their_number() -> None:
    text = block(*(invoke("f", parameter("a", "x")) for _ in range(20_000)))
    begin = time.process_time()
    assert len(parse(text)[1]) == 20_000
    assert time.process_time() - begin < 10  # it takes 0.5 s


plain = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=12)
scraps = st.sampled_from(
    [
     OPEN, f"\n\n{OPEN}\n", f"\n{CLOSE}", f"{INVOKE_END}", BROKEN_HEAD,
     f'<{DSML}invoke name="', '">',
     f'<{DSML}parameter name="a" string="true">', f'<{DSML}parameter name="b" string="false">',
     "\n", f"</{DSML}parameter>", "{", "}", "[1]", '"', "x", DSML, "<", "/", '"k": 1', EOS,
    ]
)  # fmt: skip
arguments = st.dictionaries(
    st.text("abcö", max_size=3),
    plain | st.integers() | st.lists(plain | st.none(), max_size=2) | st.dictionaries(plain, plain),
    max_size=3,
)
calls = st.lists(st.tuples(st.text("fgh_-.", min_size=1, max_size=3), arguments), max_size=3)


@given(scraps=st.lists(scraps, max_size=14), thinks=st.booleans())
def test_what_the_strict_parser_takes_is_read_alike(scraps: list[str], thinks: bool) -> None:
    _agree("".join(scraps), thinks)


@given(before=plain, calls=calls, thinks=st.booleans())
def test_what_the_encoder_writes_is_read_alike(
    before: str, calls: list[tuple[str, Any]], thinks: bool
) -> None:
    told = [{"function": {"name": name, "arguments": json.dumps(a)}} for name, a in calls]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": before, "reasoning_content": "so", "tool_calls": told},
    ]
    prompt = encode_messages(messages, "thinking" if thinks else "chat", trust_content=False)
    text = prompt.split("<think>" if thinks else "</think>", 1)[1]
    assert _agree(text, thinks)


@given(scraps=st.lists(scraps, max_size=14))
def test_no_text_is_lost(scraps: list[str]) -> None:
    """Either it is content, as it stands, or it is behind the beginning of a whole call."""
    text = "".join(scraps)
    reader = reader_of("deepseekv32", thinks=False)
    message = whole_message(reader, text)
    if not message.calls:
        assert message.content == text
        assert bool(reader.broken) == (f"<{DSML}" in text or f"</{DSML}" in text)
    else:
        head = text[: text.index(f"<{DSML}")].removesuffix("\n\n")
        assert message.content.startswith(head)


def _agree(text: str, thinks: bool) -> bool:
    """Whether the strict parser takes the text; then the reader gives the same."""
    try:
        strict = parse_completion(text, "thinking" if thinks else "chat")
    except ParseError:
        return False
    reader = reader_of("deepseekv32", thinks=thinks)
    message = whole_message(reader, text.removesuffix(EOS))
    assert reader.broken == ""
    assert (message.reasoning, message.content) == (strict.reasoning, strict.content)
    read_calls = [(call.name, json.loads(call.arguments)) for call in message.calls]
    assert read_calls == [(call.name, call.arguments) for call in strict.tool_calls]
    return True
