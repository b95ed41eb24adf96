"""Faults of ours in processes of grammars are told to the engine, whose log they go through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from grammar_engine import CHOICE, constrained

FAULTY = """
import os
from lostwax.server.grammar import host, process
class Panic(BaseException):
    pass
def fail(*_):
    raise (OSError if where == "os.fork" else Panic)("a fault of ours \\ud800" + 99999 * "x")
where = os.environ["WHERE"]
if where == "Follower.masks":
    process.Follower.masks, process.try_grammar = fail, lambda *_: None
elif where == "load_codec":
    def fail(*_):
        raise TypeError("a fault of ours \\ud800" + 99999 * "x")
    host.load_codec = fail
elif where == "os.fork":
    os.fork = fail
else:
    process.compile_grammar = fail
host.main()
"""


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("load_codec", "did not start"),
        ("os.fork", "did not start"),
        ("compile_grammar", "failed; the server's log"),
        ("Follower.masks", "the answer cannot go on: the process that follows its grammar failed"),
    ],
)
def test_a_fault_is_logged_as_any_and_fails_its_request(
    where: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "faulty_host.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("WHERE", where)
    monkeypatch.setattr("lostwax.server.grammar.grammars._MODULE", "faulty_host")
    with constrained(tmp_path) as made:
        hosts = set[int]()
        for name in ("a", "b"):
            made.add(name, [1], grammar=CHOICE)
            made.run()
            made.settle()
            hosts.add(made.grammars.host_pid)
        failed = made.failed()
    assert {*failed} == {"a", "b"}
    assert {each.code for each in failed.values()} == {"grammar_failed"}
    assert all(told in each.message for each in failed.values()), failed
    assert len(hosts) == 1, "it ended"
    assert len(made.said) == 2
    for said in made.said:
        assert said.startswith("a process that follows a grammar failed: ToldFault: ")
        assert "a fault of ours ?" in said
        assert 'faulty_host.py", line ' in said
        assert len(said) < 40_000
    assert capfd.readouterr().err == "", "its log is the engine's"
