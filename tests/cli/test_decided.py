"""What `serve` is asked of an artifact in other servers' words is compared with the compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import lostwax, one_sentence
from small_fixtures import Compiled

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.cli.foreign_values import TOOL_PARSERS, chat_form
from lostwax.cli.option_types import OptionRefused
from lostwax.ir.contract.choice import Choices

if TYPE_CHECKING:
    from lostwax.backends.runtime.load import Runtime

Capture = pytest.CaptureFixture[str]
Serve = Callable[..., tuple[int, str]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the server is started with, instead of starting."""
    seen: list[dict[str, Any]] = []

    def run(artifact: Path, settings: object, **more: Any) -> None:
        seen.append(more)

    monkeypatch.setattr("lostwax.server.gateway.serve.serve", run)
    return seen


@pytest.fixture
def serve(small_artifact: Compiled, capsys: Capture) -> Serve:
    """`serve` of the small artifact, with options."""

    def run(line: str, *words: str) -> tuple[int, str]:
        where = (small_artifact.artifact, "--checkpoint", small_artifact.checkpoint, "--port", 0)
        status, _, err = lostwax(capsys, "serve", *where, *line.split(), *words)
        return status, one_sentence(err) if status else ""

    return run


def _kernels(compiled: Compiled, *segments: str) -> set[str]:
    reader = ArtifactReader(compiled.artifact)
    choices = reader.structure("choices.json", Choices).programs
    return {
        choice.lowering
        for ref in reader.manifest.programs
        if ref.segment in segments and not ref.guard.selects_all
        for choice in choices[ref.file.rpartition("/")[2].removesuffix(".json")]
        if "mla.attend" in choice.ops
    }


def test_what_is_as_it_was_compiled_is_taken(
    serve: Serve, served: list[dict[str, Any]], small_artifact: Compiled
) -> None:
    reqs = small_artifact.manifest.limits.max_reqs
    (prefill,) = _kernels(small_artifact, "extend")
    (decode,) = _kernels(small_artifact, "decode", "draft")
    for line in (
        "--tp 1 --dp 1 --ep 1 --enable-dp-attention",
        "--tensor-parallel-size 1 --kv-cache-dtype auto",
        f"--cuda-graph-max-bs {reqs} --max-num-seqs {reqs}",
        f"--nsa-prefill-backend {prefill} --dsa-decode-backend {decode}",
        "--tool-call-parser deepseekv32 --reasoning-parser deepseek-v3",
        "--tool-call-parser deepseek_v32 --reasoning-parser deepseek_v3",
    ):
        assert serve(line) == (0, ""), line
    assert len(served) == 6


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--tp 2", "--tp 2 is asked for and ART was compiled with --tp 1; compile it anew"),
        ("--kv-cache-dtype fp8_e4m3", "--kv-layout fp8_656 is asked for and ART was compiled with"),
        ("--kv-cache-dtype bf16", "compiled with --kv-layout fp32"),
        ("--cuda-graph-max-bs 4096", "--max-reqs 4096 is asked for"),
        ("--dsa-decode-backend flashmla_kv", "--dsa-decode-backend flashmla_kv is asked for and"),
        ("--enable-deterministic-inference", "compiled with no --batch-invariant; compile it anew"),
        ("--speculative-algorithm EAGLE", "--drafts 3 is asked for and ART was compiled with"),
        (
            "--speculative-algorithm EAGLE --speculative-num-steps 2",
            "--drafts 2 is asked for and ART was compiled with --drafts 0",
        ),
        ("--tool-call-parser deepseekv31", "nearest: --tool-call-parser deepseekv32"),
        ("--reasoning-parser qwen3", "nearest: --reasoning-parser deepseek-v3"),
    ],
)
def test_what_is_not_is_refused_with_the_compile_that_makes_it(
    line: str, said: str, serve: Serve, served: list[dict[str, Any]], small_artifact: Compiled
) -> None:
    status, sentence = serve(line)
    assert status == 1
    assert said.replace("ART", str(small_artifact.artifact)) in sentence
    assert served == []
    if "asked for" not in said and "compiled with" not in said:
        return
    limits = small_artifact.manifest.limits
    command = sentence.partition("compile it anew: ")[2]
    assert command.startswith("lostwax compile ")
    assert command.endswith(" -o DIR")
    assert f"--max-context {limits.max_context}" in command
    wanted = said.partition(" is asked")[0] if "is asked" in said else ""
    assert wanted in command


def test_the_compile_command_is_one_of_ours(serve: Serve) -> None:
    from command_line import command_app

    _, sentence = serve("--tp 2 --kv-cache-dtype fp8_e4m3 --enable-deterministic-inference")
    words = sentence.partition("compile it anew: lostwax compile ")[2].split()[1:]
    known = {n for a in command_app("compile").assemble_argument_collection() for n in a.names}
    assert {word for word in words if word.startswith("-")} <= known
    assert {"--tp", "--kv-layout", "--batch-invariant"} <= {*words}


def test_drafts_are_asked_for_in_any_server_s_words(
    good_drafts: Runtime, good_folder: Path, capsys: Capture, served: list[dict[str, Any]]
) -> None:
    where = ("--checkpoint", good_folder / "checkpoint", "--port", 0)
    most = good_drafts.manifest.limits.max_drafts
    for words, number in (
        (["--drafts", "1"], 1),
        (["--speculative-algorithm", "EAGLE", "--speculative-num-steps", "1"], 1),
        (["--speculative-config", '{"method": "mtp", "num_speculative_tokens": 1}'], 1),
        (["--speculative-algorithm", "EAGLE", "--enable-deterministic-inference"], None),
    ):
        artifact = ["--model-path", good_folder / "artifact"]
        assert lostwax(capsys, "serve", *artifact, *where, *words)[0] == 0
        assert served[-1]["engine"].max_drafts == number
    too_many = ["--speculative-algorithm", "EAGLE", "--speculative-num-steps", most + 1]
    status, _, err = lostwax(capsys, "serve", good_folder / "artifact", *where, *too_many)
    assert status == 1
    assert f"compiled with --drafts {most}" in one_sentence(err) or most == 3


def test_each_encoding_has_its_parsers() -> None:
    for encoding, parser in TOOL_PARSERS.items():
        assert chat_form(encoding, parser, "deepseek_v3") == (parser, True)
        for other in {"deepseekv32", "deepseekv31", "hermes"} - {parser}:
            nearest = f"nearest: --tool-call-parser {parser}"
            with pytest.raises(OptionRefused, match=nearest):
                chat_form(encoding, other, None)
        with pytest.raises(OptionRefused, match="nearest: --reasoning-parser deepseek-v3, or none"):
            chat_form(encoding, None, "qwen3")
    assert chat_form(None, None, None) == (None, True)
    with pytest.raises(OptionRefused, match="this checkpoint's chats are not known here"):
        chat_form(None, None, "deepseek-v3")


def test_no_parser_goes_with_every_encoding() -> None:
    for encoding in (*TOOL_PARSERS, None):
        assert chat_form(encoding, "none", "none") == ("none", False)


def test_beside_a_template_any_parser_that_is_known_goes() -> None:
    for encoding in (*TOOL_PARSERS, None):
        for parser in ("deepseekv32", "deepseekv31", "none"):
            assert chat_form(encoding, parser, None, has_template=True) == (parser, True)
        assert chat_form(encoding, "deepseek_v31", "deepseek_v3", has_template=True) == (
            "deepseekv31",
            True,
        )
        with pytest.raises(OptionRefused, match="give one of deepseekv32, deepseekv31, none"):
            chat_form(encoding, "hermes", None, has_template=True)
        with pytest.raises(OptionRefused, match="give one of deepseek-v3, none"):
            chat_form(encoding, None, "qwen3", has_template=True)
