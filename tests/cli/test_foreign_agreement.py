"""`serve`, `run`, `migrate` and a file of options say the same of every other server's option."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import command_app, lostwax, one_sentence

from lostwax.cli import foreign_options
from lostwax.cli.foreign_options import LACKING, NEEDLESS, hint, lacking, said_of
from lostwax.cli.foreign_values import FORMATS, REASONING_PARSERS, TOOL_PARSERS

Capture = pytest.CaptureFixture[str]
OURS: dict[str, str] = foreign_options._OURS  # pyright: ignore[reportPrivateUsage]
OTHERWISE: dict[str, str] = foreign_options._OTHERWISE  # pyright: ignore[reportPrivateUsage]
NAMED = sorted({*OURS, *OTHERWISE, *NEEDLESS, *LACKING})
UNKNOWN = "lostwax has nothing of this name"


def names_of(command: str) -> set[str]:
    found = command_app(command).assemble_argument_collection()
    return {name for each in found for name in each.names if name.startswith("-")}


SERVES = names_of("serve")


def refused(capsys: Capture, *words: object) -> str:
    status, out, err = lostwax(capsys, *words)
    assert (out, status in (1, 2)) == ("", True)
    return one_sentence(err).removeprefix("lostwax: ")


def migrated(capsys: Capture, options: str) -> dict[str, Any]:
    command = f"python -m sglang.launch_server --model-path org/V3.2 {options}"
    _, out, _ = lostwax(capsys, "migrate", command, "--json")
    return json.loads(out)


def clause(sentence: str) -> str:
    """A reason without its remedy."""
    return re.split(r"[:;] leave it out", sentence)[0]


def test_every_option_has_one_thing_said_of_it() -> None:
    tables = [set(OURS), set(OTHERWISE), set(NEEDLESS), set(LACKING)]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert not {*NEEDLESS, *LACKING} & SERVES, "serve takes it: nothing else is to be said of it"


@pytest.mark.parametrize("name", [name for name in NAMED if name not in SERVES])
def test_serve_and_migrate_give_the_same_reason(name: str, capsys: Capture) -> None:
    at_serve = hint(name, "serve", SERVES, SERVES) or ""
    assert at_serve.startswith(f"unknown option {name}: ")
    found = migrated(capsys, f"{name} 7" if name == "--max-total-tokens" else name)
    told = [*found["left_out"], *found["needless"]]
    reasons = [reason["why"] for reason in told if reason["option"].split()[0] == name]
    if name == "--max-total-tokens":  # in pages
        assert found["commands"][-1][-2:] == ["--num-pages", "2"]
        assert "pages of 64 tokens are given" in at_serve
        return
    if name == "--device":
        assert reasons, found
        return
    (why,) = reasons
    assert why != UNKNOWN
    reason = said_of(name)
    if reason is not None:
        assert clause(reason) == clause(why).removesuffix("; leave it out")
        assert clause(reason.format(command="serve")) in at_serve
    else:
        assert OURS[name] in why
        assert OURS[name] in at_serve
    if name in NEEDLESS:
        needless = [reason["option"] for reason in found["needless"]]
        assert name in needless or name in (
            "--attention-backend",
            "--load-format",
            "--quantization",
            "--tokenizer",
            "--tokenizer-mode",
            "--tokenizer-path",
        )


@pytest.mark.parametrize("command", ["run", "eval", "compile", "plan", "bench serve", "serve"])
def test_an_option_that_is_named_instead_is_the_commands_own(command: str, capsys: Capture) -> None:
    own = names_of(command)
    for name in sorted({*NAMED, *SERVES} - own):
        said = hint(name, command, own, SERVES)
        if said is None:
            continue
        if there := re.search(r"here it is (--[\w-]+)", said):
            assert there[1] in own, said
        for ours, option in re.findall(
            r"lostwax (serve PATH|compile CHECKPOINT) (--?[\w-]+)", said
        ):
            assert option in names_of(ours.split()[0]), said
        if there := re.search(r"lostwax (\w+) --url", said):
            assert "--url" in names_of(there[1]), said


@pytest.mark.parametrize("command", ["run", "eval"])
def test_every_option_of_a_server_is_explained_where_a_server_is_asked(command: str) -> None:
    own = names_of(command)
    for name in sorted(SERVES - own):
        said = hint(name, command, own, SERVES)
        assert said is not None, name
        assert "leave it out" not in said or name in LACKING, said


@pytest.mark.parametrize("name", [name for name in NAMED if name not in SERVES])
def test_a_file_says_what_the_command_line_says(name: str, capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(f'[serve]\n"{name[2:]}" = 1\n')
    in_file = refused(capsys, "serve", "--config", path)
    at_serve = (hint(name, "serve", SERVES, SERVES) or "").partition(": ")[2]
    assert in_file.endswith(f"no option {name[2:]!r}; {at_serve}")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("-pp", "--pipeline-parallel-size"),
        ("-q", "--quantization"),
        ("--enable_prefix_caching", "--enable-prefix-caching"),
        ("--trust_remote_code", "--trust-remote-code"),
    ],
)
def test_vllms_ways_to_write_an_option_are_known_to_both(
    word: str, name: str, capsys: Capture
) -> None:
    found = migrated(capsys, f"{word} 8")
    assert UNKNOWN not in json.dumps(found)
    said = refused(capsys, "serve", word)
    assert said.startswith(f"unknown option {word}: ")
    assert clause(said_of(name) or "") in said


def test_parsers_are_what_serve_takes(capsys: Capture) -> None:
    """What migrate calls needless serve takes of some checkpoint, what it leaves out of none."""
    known = {
        "--tool-call-parser": set(TOOL_PARSERS.values()),
        "--reasoning-parser": set(REASONING_PARSERS),
    }
    assert known["--tool-call-parser"] == set(FORMATS)
    for option, parsers in known.items():
        for parser in ("deepseekv32", "deepseekv31", "deepseekv3", "deepseek-v3", "none", "qwen"):
            found = migrated(capsys, f"{option} {parser}")
            left = [each["option"] for each in found["left_out"]]
            takes = parser.replace("-", "") in {each.replace("-", "") for each in parsers}
            assert (f"{option} {parser}" in left) != takes, (option, parser)
            if parser == "none":
                assert found["commands"][-1][-2:] == [option, "none"]


def test_copies_of_the_attention_have_one_remedy(capsys: Capture) -> None:
    at_serve = refused(capsys, "serve", "--dp", "8")
    (left,) = migrated(capsys, "--dp 8")["left_out"]
    assert at_serve == f"{left['option']}: {left['why']}"


def test_lacking_knows_every_name_that_hints_know() -> None:
    for name in NAMED:
        assert lacking(name) or name in NEEDLESS, name
