"""`lostwax eval --artifact`: gateway and engine in the evaluation's own process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import lostwax
from http_server import small_tokenizer
from small_fixtures import Compiled
from trained_fixtures import TRAINED

from lostwax.evals.connect import artifact_facts


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words(*prompts: str) -> list[dict[str, Any]]:
    return [
        {"id": text, "kind": "exact", "prompt": text, "reference": {"text": "x"}}
        for text in prompts
    ]


def samples(path: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {line["id"]: line["answer"]["text"] for line in lines}


def test_an_artifact_answers_the_same_one_by_one_and_together(
    small_artifact: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = shutil.copytree(small_artifact.checkpoint, tmp_path / "ckpt")
    small_tokenizer().save(str(checkpoint / "tokenizer.json"))
    path = write(tmp_path / "w.jsonl", *words("aa", "bcd", "hello", "to be or not", "z", "yx"))
    where = ("--artifact", small_artifact.artifact, "--checkpoint", checkpoint, "--threads", 1)
    found: list[dict[str, str]] = []
    for concurrency in (1, 8):
        out = tmp_path / str(concurrency)
        options = ("--max-tokens", 12, "--concurrency", concurrency, "--out", out, "--json")
        status, said, _ = lostwax(capsys, "eval", path, *where, *options)
        assert status == 0
        report = json.loads(said)
        assert report["source"] == "in process"
        assert report["settings"]["artifact"] == small_artifact.manifest.digest
        assert report["tasks"][0]["metrics"]["samples"] == 6
        found.append(samples(out / "w.samples.jsonl"))
    assert found[0] == found[1]
    assert any(found[0].values()), "the random model says something"


def test_samples_of_other_weights_are_not_taken_for_these(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    # Retrained weights of the same shapes give an artifact of the same digest.
    other = shutil.copytree(small_artifact.checkpoint, tmp_path / "other")
    facts = artifact_facts(small_artifact.artifact, small_artifact.checkpoint)
    assert artifact_facts(small_artifact.artifact, other) == facts
    shard = next(other.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    changed = artifact_facts(small_artifact.artifact, other)
    assert changed["artifact"] == facts["artifact"]
    assert changed["weights"] != facts["weights"]


def test_what_the_server_refuses_is_an_error_of_every_sample(
    small_artifact: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "w.jsonl", *words("aa", "bb"))
    where = ("--artifact", small_artifact.artifact, "--checkpoint", small_artifact.checkpoint)
    how = ("--threads", 1, "--concurrency", 1, "--out", tmp_path / "out")
    status, out, _ = lostwax(capsys, "eval", path, *where, *how)
    assert status == 1
    assert "2 failed, first aa/0: status 400: this checkpoint has no tokenizer" in out


def test_a_request_over_its_time_is_a_failed_sample(
    small_artifact: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = shutil.copytree(small_artifact.checkpoint, tmp_path / "ckpt")
    small_tokenizer().save(str(checkpoint / "tokenizer.json"))
    path = write(tmp_path / "w.jsonl", *words("aa", "bb"))
    where = ("--artifact", small_artifact.artifact, "--checkpoint", checkpoint)
    # so many tokens that no machine has them within the time
    long = ("--max-tokens", 400)
    how = ("--threads", 1, "--timeout", 0.001, "--out", tmp_path / "out")
    status, out, err = lostwax(capsys, "eval", path, *where, *how, *long)
    assert status == 1
    assert "2 failed, first aa/0: no answer within 0.001 s" in out
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_trained_model_is_judged_through_chat_and_tools(
    trained_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = [(17, 25), (8, 5), (30, 12), (9, 9), (21, 14), (50, 7)]
    asked = [
        {
            "id": f"{mode}-{a}+{b}",
            "kind": "number",
            "messages": [{"role": "user", "content": f"What is {a} + {b}?"}],
            "thinking": mode == "thinking",
            "reference": {"value": str(a + b)},
        }
        for a, b in sums
        for mode in ("chat", "thinking")
    ]
    path = write(tmp_path / "sums.jsonl", *asked)
    where = ("--artifact", trained_artifact, "--checkpoint", TRAINED, "--threads", 1)
    for endpoint in ("chat", "completions"):
        out = tmp_path / endpoint
        options = ("--endpoint", endpoint, "--max-tokens", 300, "--out", out, "--json")
        status, said, _ = lostwax(capsys, "eval", path, *where, *options)
        assert status == 0
        assert json.loads(said)["tasks"][0]["metrics"]["accuracy"] >= 0.75
    chat, completions = (
        samples(tmp_path / e / "sums.samples.jsonl") for e in ("chat", "completions")
    )
    assert chat == completions, "the gateway renders and parses chats as the evaluation does"
