"""Answers that follow grammars, over a runtime that runs late: what they are depends on no draft,
depth, neighbour or preemption, and what happens to one grammar happens to nobody else."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from fake_runtime import EOS, FakeLimits, generate
from grammar_engine import CHOICE, GRAMMARS, JSON, ORACLE, WIDE, constrained
from grammar_processes import process_of
from grammar_vocabulary import CODEC, THINK, THINK_END
from late_runtime import LateRuntime, Owner

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Cancel, Failed, Output, Submit
from lostwax.server.gateway.generation import STATUSES
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammars import MAX_COMPILING


@pytest.mark.parametrize("drafts", [0, 1, 3])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_answers_are_those_of_the_grammar_alone_beside_others_without_one(
    tmp_path: Path, depth: int, drafts: int
) -> None:
    with constrained(tmp_path, depth, drafts) as made:
        prompts = {f"{i}": [3 + i, 1, 4 * i] for i in range(9)}
        for i, (name, prompt) in enumerate(prompts.items()):
            grammar = (*GRAMMARS, None)[i % 4]
            made.add(name, prompt, grammar=grammar, ignore_eos=grammar is None)
        made.run()
        for i, (name, prompt) in enumerate(prompts.items()):
            grammar = (*GRAMMARS, None)[i % 4]
            want = generate(prompt, 20) if grammar is None else ORACLE.answer(prompt, grammar, 20)
            assert made.ids(name) == want, (name, grammar)
        if drafts:
            assert made.core.drafting.num_accepted, "no draft was accepted"


def test_an_answer_ends_exactly_where_its_grammar_lets_it(tmp_path: Path) -> None:
    with constrained(tmp_path, 1, 3) as made:
        for i in range(40):
            made.add(f"{i}", [i, 2, 3], 30, grammar=GRAMMARS[i % 3])
        made.run()
        for i in range(40):
            ids = made.ids(f"{i}")
            assert ids[-1] == EOS or len(ids) == 30
            text = CODEC.decode_with_marks([t for t in ids if t != EOS])
            if ids[-1] != EOS:
                continue
            if i % 3 == 0:
                assert set(json.loads(text)) <= {"a", "b"}
            else:
                assert re.fullmatch(["[a-z0-9 ]{1,9}", "abc|ab|cd 12"][i % 3 - 1], text)


@pytest.mark.parametrize("drafts", [0, 3])
def test_the_grammar_begins_behind_reasoning(tmp_path: Path, drafts: int) -> None:
    with constrained(tmp_path, 1, drafts) as made:
        prompts = {f"{i}": [i, 7] for i in range(12)}
        for name, prompt in prompts.items():
            made.add(name, prompt, 40, grammar=WIDE, grammar_after=THINK_END)
        made.run()
        ended = 0
        for name, prompt in prompts.items():
            ids = made.ids(name)
            assert ids == ORACLE.answer(prompt, WIDE, 40, after=THINK_END)
            ended += ids[-1] == EOS
            assert EOS not in ids[:-1]
        assert ended, "none came out of its reasoning"


def test_a_request_that_is_preempted_follows_its_grammar_on(tmp_path: Path) -> None:
    with constrained(tmp_path, 1, 1, num_pages=9) as made:
        prompts = {f"{i}": [i] * 6 for i in range(4)}
        for name, prompt in prompts.items():
            made.add(name, prompt, 20, grammar=JSON)
        made.run()
        assert made.core.scheduler.num_preempted
        for name, prompt in prompts.items():
            assert made.ids(name) == ORACLE.answer(prompt, JSON, 20)


def test_rows_that_score_the_prompt_have_no_masks(tmp_path: Path) -> None:
    with constrained(tmp_path, 1, 1) as made:
        for name in "ab":
            made.add(name, [5, 6, 7], grammar=JSON, score_prompt=True, top_logprobs=1)
        made.run()
        scores = [e.prompt_scores for e in made.events if isinstance(e, Output) if e.prompt_scores]
        assert [len(each) for each in scores] == [2, 2]
        assert made.ids("a") == made.ids("b") == ORACLE.answer([5, 6, 7], JSON, 20)


def test_choices_of_one_prompt_each_follow_it(tmp_path: Path) -> None:
    with constrained(tmp_path, 1, 1) as made:
        made.add("a", [5, 6, 7, 8, 9, 1], 20, grammar=WIDE, num_choices=3)
        made.run()
        want = ORACLE.answer([5, 6, 7, 8, 9, 1], WIDE, 20)
        assert [made.ids(f"a-{i}") for i in range(3)] == [want] * 3


def test_a_request_is_cancelled_while_it_waits_for_its_grammar_and_while_it_runs(
    tmp_path: Path,
) -> None:
    with constrained(tmp_path, 1, 1) as made:
        made.add("held", [1], grammar=JSON)
        made.events += made.core.handle(Cancel("held"))
        made.add("a", [1, 2], 30, grammar=JSON)
        made.add("b", [1, 2, 3], 30, grammar=JSON)
        while len(made.ids("a")) < 2:
            made.step()
        made.events += made.core.handle(Cancel("a"))
        made.add("a", [9, 9], 30, grammar=CHOICE)  # its name is free
        made.events = [e for e in made.events if e.request != "a"]
        made.run()
        assert made.ids("b") == ORACLE.answer([1, 2, 3], JSON, 30)
        assert made.ids("a") == ORACLE.answer([9, 9], CHOICE, 30)
        ends = [e.finish for e in made.events if isinstance(e, Output) and e.request == "held"]
        assert ends == ["cancelled"]
        made.core.step()
        assert not made.core.has_work
        assert all(made.grammars.process(g).users == 0 for g in (JSON, CHOICE))


def test_grammars_that_nobody_waits_for_any_more_hold_up_nobody(tmp_path: Path) -> None:
    with constrained(tmp_path) as made:
        left = [Grammar("regex", f"a{i}") for i in range(16)]
        processes = [made.grammars.want(grammar) for grammar in left]
        made.grammars.look()
        for process in processes:
            process.users -= 1
        honest = made.grammars.want(CHOICE)
        made.grammars.look()
        assert honest.has_begun, "it is the next"
        until = time.monotonic() + 60
        while not honest.is_ready:
            assert time.monotonic() < until
            made.grammars.look(0.05)
        assert not any(process.is_ready or process.has_begun for process in processes)
        assert all(process.forked_s is None for process in processes[MAX_COMPILING:])
        for grammar in left:
            with pytest.raises(KeyError):
                made.grammars.process(grammar)
        honest.users -= 1


def test_too_many_grammars_that_wait_are_refused_the_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lostwax.server.grammar.grammars.MAX_WAITING", 2)
    with constrained(tmp_path) as made:
        for i, grammar in enumerate((JSON, WIDE, CHOICE, WIDE)):
            made.add(f"{i}", [i], grammar=grammar)
        made.run()
        failed = made.failed()
        assert {*failed} == {"2"}, "one that waits already may be waited for by others"
        assert failed["2"].code == "too_many_grammars"
        assert STATUSES[failed["2"].code] == 429
        made.add("again", [1], grammar=CHOICE)
        made.run()
        assert made.ids("again") == ORACLE.answer([1], CHOICE, 20)


def test_a_time_that_is_over_ends_a_request_that_waits_for_its_grammar(tmp_path: Path) -> None:
    with constrained(tmp_path) as made:
        made.add("a", [1], grammar=JSON, timeout_s=1e-9)
        made.run()
        assert made.failed()["a"].code == "request_timeout"


def test_an_answer_whose_grammar_leads_nowhere_fails_alone(tmp_path: Path) -> None:
    nowhere = Grammar("choice", '["a", "b\u00df"]')  # the vocabulary has no such letter
    for depth in (0, 1):
        with constrained(tmp_path, depth, 1) as made:
            to_b = {CODEC.encode("b")[0]: 100.0}
            made.add("a", [1, 2], grammar=nowhere, logit_bias=to_b)
            made.add("b", [1, 2, 3], grammar=WIDE)
            made.run()
            failed = made.failed()
            assert {*failed} == {"a"}
            mine = [e for e in made.events if e.request == "a"]
            told, *ends = [isinstance(e, Failed) for e in mine]
            assert (told, ends) == (False, [False, True]), "nothing follows"
            assert failed["a"].code == "grammar_failed"
            assert "none goes on from here" in failed["a"].message
            assert made.ids("b") == ORACLE.answer([1, 2, 3], WIDE, 20)
            assert not made.said


def test_a_grammar_is_compiled_once(tmp_path: Path) -> None:
    with constrained(tmp_path) as made:
        pids = set[int]()
        for i in range(3):
            made.add(f"{i}", [i], grammar=CHOICE)
            made.run()
            pids.add(process_of(made.grammars, CHOICE))
        assert len(pids) == 1


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        (Grammar("json_schema", '{"type": 3}'), "type must be a string"),
        (Grammar("json_schema", "{"), "EOF"),
        (Grammar("regex", "("), "unclosed group"),
        (Grammar("lark", "nothing"), "1"),
        (Grammar("ebnf", "root ::="), ""),
        (Grammar("choice", "[]"), ""),
        (Grammar("regex", "(a{1000}){1000}"), "ms a token|within 2 s"),
        (Grammar("regex", "a" * 70_000), "70000 bytes, more than 65536"),
        (Grammar("json_schema", "[" * 65 + "]" * 65), "nested 65 deep, more than 64"),
    ],
)
def test_what_cannot_be_followed_is_refused_while_others_go_on(
    tmp_path: Path, grammar: Grammar, why: str
) -> None:
    with constrained(tmp_path) as made:
        made.add("c", [4], 30, ignore_eos=True)
        made.add("a", [1], grammar=grammar)
        began = time.monotonic()
        made.run()
        assert time.monotonic() - began < 10
        assert made.failed()["a"].code == "invalid_grammar"
        assert re.search(why, made.failed()["a"].message), made.failed()["a"].message
        assert made.ids("c") == generate([4], 30)


def test_what_contradicts_a_grammar_is_refused_by_name(tmp_path: Path) -> None:
    with constrained(tmp_path) as made:
        made.add("a", [1], grammar=JSON, ignore_eos=True)
        made.add("b", [1], grammar=JSON, min_tokens=3, held_ids=[EOS])
        failed = made.failed()
        assert {each.code for each in failed.values()} == {"invalid_value"}
        assert "ignore_eos" in failed["a"].message


def test_the_name_of_a_request_that_waits_for_its_grammar_is_taken(tmp_path: Path) -> None:
    with constrained(tmp_path) as made:
        made.add("a", [1], grammar=JSON)
        made.add("a", [1], grammar=JSON)
        assert "of this name is running" in made.failed()["a"].message


def test_the_ends_that_a_request_brings_end_it_where_the_grammar_lets_them(tmp_path: Path) -> None:
    with constrained(tmp_path, 1, 1) as made:
        for i in range(8):
            made.add(f"{i}", [i], 40, grammar=WIDE, stop_ids=[55, THINK])
        made.run()
        ends = {made.ids(f"{i}")[-1] for i in range(8)}
        assert ends <= {55, THINK, EOS}
        assert ends - {EOS}, "each ended by the model's own"
        for i in range(8):
            assert re.fullmatch("[a-z0-9 ]{1,9}", CODEC.decode_with_marks(made.ids(f"{i}")[:-1]))


def test_processes_that_nobody_needs_are_kept_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lostwax.server.grammar.grammars.MAX_IDLE", 2)
    with constrained(tmp_path) as made:
        grammars = [Grammar("regex", each * 3) for each in "abcd"]
        for i, grammar in enumerate(grammars):
            made.add(f"{i}", [i], grammar=grammar)
            made.run()
        made.core.step()
        for grammar in grammars[:2]:
            with pytest.raises(KeyError):
                made.grammars.process(grammar)
        made.add("again", [1], grammar=grammars[0])
        made.run()
        assert made.ids("again") == ORACLE.answer([1], grammars[0], 20)


def test_one_that_has_grown_too_large_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with constrained(tmp_path) as made:
        grammars = [Grammar("regex", each * 3) for each in "ab"]
        for i, grammar in enumerate(grammars):
            made.add(f"{i}", [i], grammar=grammar)
            made.run()
        made.settle()
        older, newer = map(made.grammars.process, grammars)
        newer.num_bytes = older.num_bytes + 1
        monkeypatch.setattr("lostwax.server.grammar.grammars.MAX_IDLE_BYTES", older.num_bytes)
        made.grammars.drop_idle()
        assert made.grammars.process(grammars[0]) is older
        with pytest.raises(KeyError):
            made.grammars.process(grammars[1])


def test_an_engine_without_a_tokenizer_refuses_grammars() -> None:
    core = EngineCore(LateRuntime(FakeLimits(), lambda _: Owner("a", 0)))
    failed = core.handle(Submit(request="a", prompt=[1], max_tokens=3, grammar=JSON))
    assert isinstance(failed[0], Failed)
    assert failed[0].code == "unsupported_value"
    assert "no tokenizer" in failed[0].message


def test_a_step_that_fails_takes_its_masked_rows_with_it_and_no_other(tmp_path: Path) -> None:
    for depth in (0, 1):
        with constrained(tmp_path, depth, 1) as made:
            made.add("a", [1, 2], 30, grammar=JSON)
            while len(made.ids("a")) < 2:
                made.step()
            made.runtime.fail_in = 0
            made.run()
            assert made.failed()["a"].code == "engine_error"
            made.add("b", [1, 2], 30, grammar=JSON)
            made.run()
            assert made.ids("b") == ORACLE.answer([1, 2], JSON, 30)
