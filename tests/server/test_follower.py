"""One answer's masks, without a process: ends, marks, reasoning, drafts and what is refused."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np
import pytest
from fake_runtime import EOS, VOCAB
from grammar_vocabulary import CODEC, PAIRS, SINGLE, THINK, THINK_END, tokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from tokenizers import AddedToken, Tokenizer
from trained_fixtures import TRAINED

from lostwax.server.formats.encoding_v32 import DSML
from lostwax.server.formats.encoding_v32 import EOS as SENTENCE_END
from lostwax.server.formats.pieces import Piece
from lostwax.server.gateway.tokenizer import IdCodec, TextCodec
from lostwax.server.grammar.compile_grammar import compile_grammar
from lostwax.server.grammar.follower import CannotGoOn, Follower, Rows
from lostwax.server.grammar.grammar import BadGrammar, Grammar, Kind
from lostwax.server.grammar.trial import try_grammar
from lostwax.server.grammar.vocabulary import NoVocabulary, Vocabulary

VOCABULARY = Vocabulary(CODEC, VOCAB, EOS)
MOST = 6
OTHER_END = SINGLE.index("x")
BOTH = (EOS,)


def ids(text: str) -> list[int]:
    return VOCABULARY.spelt(text.encode())


def token(text: str) -> int:
    (found,) = ids(text)
    return found


class _Answer:
    """A follower, and rows that hold rubbish at first."""

    def __init__(
        self,
        grammar: Grammar,
        ends: tuple[int, ...] = BOTH,
        after: int | None = None,
        vocabulary: Vocabulary = VOCABULARY,
    ) -> None:
        self._memory = memoryview(bytearray(b"\x5a" * (4 * 2 * MOST)))
        self._size = vocabulary.vocab_size
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._rows = Rows(self._memory, address, self._size)
        self.follower = Follower(compile_grammar(grammar, vocabulary), vocabulary, ends, after)

    def masks(self, tokens: list[int], drafts: list[int] | None = None) -> list[set[int]]:
        """What may come behind the tokens, and behind each draft."""
        self.follower.take(tokens)
        self.follower.masks(drafts or [], self._rows, 1)
        count = 1 + len(drafts or [])
        every = range(self._size)
        return [{i for i in every if self._rows.allows(1 + r, i)} for r in range(count)]


def of(kind: Kind, text: str) -> Grammar:
    return Grammar(kind, text)


EVERY = set(range(VOCAB))


def test_an_end_may_come_where_the_answer_may_end() -> None:
    answer = _Answer(of("regex", "ab?"))
    assert answer.masks([]) == [{token("a"), token("ab")}]
    assert answer.masks([token("a")]) == [{token("b"), EOS}]
    assert answer.masks([token("b")]) == [{EOS}]


def test_all_ends_of_an_answer_may_come_and_no_other() -> None:
    ends = (THINK, OTHER_END)
    answer = _Answer(of("regex", "x?a"), ends)
    assert answer.masks([]) == [{token("a")}], "an end is no text"
    assert answer.masks([token("a")]) == [{*ends}]
    with pytest.raises(CannotGoOn, match="no token of the model continues"):
        _Answer(of("regex", "x"), ends).masks([])
    assert _Answer(of("regex", "a"), (EOS, VOCAB + 3)).masks([token("a")]) == [{EOS}]


def test_marks_are_no_text() -> None:
    answer = _Answer(of("regex", r"(?s:.*)"))
    (may,) = answer.masks([])
    assert not may & {THINK, THINK_END}
    assert EOS in may
    assert may >= set(range(len(SINGLE) + 1 + len(PAIRS)))


def test_the_mark_of_tool_calls_is_text_where_it_is_a_token() -> None:
    made = tokenizer()
    made.add_tokens([AddedToken(DSML)])
    number: Any = made.token_to_id(DSML)
    vocabulary = Vocabulary(TextCodec(made), number + 1, EOS)
    matcher = compile_grammar(of("lark", f'start: "<{DSML}a"'), vocabulary)
    assert matcher.try_consume_tokens([token("<"), number, token("a")]) == 3


def test_a_call_that_must_come_is_spelt_with_the_mark_that_prompts_have() -> None:
    made = Tokenizer.from_file(str(TRAINED / "tokenizer.json"))
    made.add_tokens([AddedToken(DSML)])
    codec = TextCodec(made)
    mark = codec.marks[DSML]
    vocabulary = Vocabulary(codec, mark + 1, codec.marks[SENTENCE_END])
    call = f'\n\n<{DSML}function_calls>\n<{DSML}invoke name="f">\n\n</{DSML}invoke>\n'
    as_prompts_have_it = codec.encode_pieces([Piece(call, is_structure=True)])
    assert as_prompts_have_it.count(mark) == 3
    assert vocabulary.spelt(call.encode()) == as_prompts_have_it
    matcher = compile_grammar(of("lark", f"start: {json.dumps(call)}"), vocabulary)
    for wanted in as_prompts_have_it:
        assert matcher.compute_ff_tokens()[:1] == [wanted]
        mask = allocate_token_bitmask(1, vocabulary.vocab_size)
        fill_next_token_bitmask(matcher, mask)
        assert np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")) == [wanted]
        assert matcher.consume_token(wanted)


def test_drafts_have_masks_of_their_own_and_are_taken_back() -> None:
    answer = _Answer(of("regex", "[a-c]{3}[0-9]"))
    letters = {token(each) for each in ("a", "b", "c", "ab")}
    drafts = [token("a"), token("b"), token("c")]
    digits = {token(f"{digit}") for digit in range(10)}
    assert answer.masks([], drafts) == [letters, letters, letters - {token("ab")}, digits]
    assert answer.masks([], drafts) == [letters, letters, letters - {token("ab")}, digits]
    assert answer.masks([token("c")], drafts[:1]) == [letters, letters - {token("ab")}]


def test_behind_a_draft_that_may_not_come_or_ends_the_answer_every_id_may() -> None:
    answer = _Answer(of("regex", "[a-c]+"))
    letters = {token(each) for each in ("a", "b", "c", "ab")}
    assert answer.masks([], [token("x"), token("a")]) == [letters, EVERY, EVERY]
    found = answer.masks([token("a")], [token("b"), EOS, token("a")])
    assert found == [letters | {EOS}, letters | {EOS}, EVERY, EVERY]
    assert answer.masks([token("a")], [THINK]) == [letters | {EOS}, EVERY]


def test_a_reasoning_answer_may_not_end_and_not_spell_its_mark() -> None:
    answer = _Answer(of("regex", "a"), after=THINK_END)
    assert answer.masks([]) == [EVERY - {EOS}]
    assert answer.masks(ids("a</think")) == [EVERY - {EOS, token(">")}]
    assert answer.masks(ids("ab")) == [EVERY - {EOS}]
    assert answer.masks([token("</"), *ids("thi")]) == [EVERY - {EOS, token("n")} | {token("n")}]
    assert answer.masks([token("n"), token("k")]) == [EVERY - {EOS, token(">")}]
    assert answer.masks([token("a"), THINK_END]) == [{token("a")}]
    assert answer.masks([token("a")]) == [{EOS}]


def test_a_token_that_ends_reasoning_in_its_middle_may_not_come() -> None:
    words = [">a", "k>", "think>", "/think>", "x</think>y"]

    class Codec(TextCodec):
        """Some tokens of the model are text that holds the mark's end."""

        def token_bytes(self, token: int) -> bytes | None:
            rare = token - (THINK - len(words))
            return words[rare].encode() if 0 <= rare < len(words) else super().token_bytes(token)

    vocabulary = Vocabulary(Codec(tokenizer()), VOCAB, EOS)
    at = {word: THINK - len(words) + i for i, word in enumerate(words)}
    answer = _Answer(of("regex", "a"), after=THINK_END, vocabulary=vocabulary)
    assert answer.masks([]) == [EVERY - {EOS, at["x</think>y"]}]
    assert answer.masks([token("<")]) == [EVERY - {EOS, at["x</think>y"], at["/think>"]}]
    found = answer.masks(ids("</think"))
    assert found == [EVERY - {EOS, at["x</think>y"], at[">a"], token(">")}]


def test_a_draft_may_end_the_reasoning_and_is_taken_back() -> None:
    answer = _Answer(of("regex", "[ab]"), after=THINK_END)
    letters = {token("a"), token("b")}
    for _ in range(2):
        found = answer.masks([], [token("<"), THINK_END, token("a")])
        assert found == [EVERY - {EOS}, EVERY - {EOS}, letters, {EOS}]
    assert answer.masks([THINK_END], [token("b")]) == [letters, {EOS}]


def test_a_token_without_a_place_is_an_error() -> None:
    answer = _Answer(of("regex", "a"))
    with pytest.raises(CannotGoOn):
        answer.masks([token("b")])


def test_blanks_between_values_are_few() -> None:
    answer = _Answer(of("json_object", ""))
    (may,) = answer.masks([token("{"), *ids(" " * 19)])
    assert token(" ") in may
    (may,) = answer.masks(ids(" "))
    assert token(" ") not in may


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "object", "propertyNames": {"pattern": "a"}}, "propertyNames"),
        ({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}, "uniqueItems"),
        ({"type": "string", "format": "nothing"}, "nothing"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
        ({"$ref": "http://127.0.0.1:1/x.json"}, "not fetch"),
    ],
)
def test_what_a_schema_says_and_nobody_holds_is_refused(schema: object, why: str) -> None:
    with pytest.raises(BadGrammar, match=why):
        compile_grammar(of("json_schema", json.dumps(schema)), VOCABULARY)


def test_a_grammar_that_is_costly_to_follow_is_refused_with_what_it_takes() -> None:
    codec = TextCodec(Tokenizer.from_file(str(TRAINED / "tokenizer.json")))
    vocabulary = Vocabulary(codec, 4096, 1)
    costly = compile_grammar(of("ebnf", 'root ::= root root root | "a" | [a-z]*'), vocabulary)
    with pytest.raises(BadGrammar, match=r"takes \d+ ms a token, more than 2"):
        try_grammar(costly, vocabulary)
    try_grammar(compile_grammar(of("json_object", ""), vocabulary), vocabulary)


def test_choices_are_texts_as_they_stand() -> None:
    texts = ['a"b', "a\\n", "/a/", "a\nb"]
    matcher = compile_grammar(of("choice", json.dumps(texts)), VOCABULARY)
    for text in ("/a/", 'a"b'):
        own = matcher.deep_copy()
        assert own.try_consume_tokens(ids(text)) == len(ids(text))
        assert own.is_accepting()


def test_ids_behind_the_tokenizers_are_no_text() -> None:
    vocabulary = Vocabulary(CODEC, VOCAB + 30, EOS)
    answer = _Answer(of("regex", "(?s:.*)"), vocabulary=vocabulary)
    (may,) = answer.masks([])
    assert max(may) < VOCAB


def test_a_tokenizer_without_bytes_has_no_vocabulary() -> None:
    with pytest.raises(NoVocabulary, match="byte-level"):
        Vocabulary(IdCodec(), VOCAB, EOS)
