"""lm-eval's two local models against `lostwax serve` of the tiny model, on examples of its tasks.

What it prints is what `lostwax eval` says of the same examples: chats are graded by their last
line, and a given answer is the greedy one as often as `lostwax eval` reads it as the whole text.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trained_fixtures import TRAINED

from lostwax.server.formats.encoding_v32 import EOS, encode_messages

pytestmark = pytest.mark.clients

TASKS = Path(__file__).parent / "lm_eval"
ARITHMETIC = TRAINED.parent / "tasks" / "arithmetic.jsonl"
EXAMPLES = 12
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
END_S = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`asked.jsonl` for `lostwax eval`, and the same examples as `tiny.jsonl` for lm-eval."""
    folder = tmp_path_factory.mktemp("lm_eval")
    lines = ARITHMETIC.read_text(encoding="utf-8").splitlines()
    found = [each for each in map(json.loads, lines) if _is_plain(each)][:EXAMPLES]
    assert len(found) == EXAMPLES
    rows = [
        {
            "question": each["messages"][0]["content"],
            "last_line": each["reference"]["text"],
            "rendered": encode_messages(each["messages"], "chat"),
            "completion": each["completion"] + EOS,
        }
        for each in found
    ]
    for name, objects in (("asked", found), ("tiny", rows)):
        text = "".join(json.dumps(each) + "\n" for each in objects)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def _is_plain(example: dict[str, Any]) -> bool:
    return not example["thinking"] and [m["role"] for m in example["messages"]] == ["user"]


def _lm_eval(folder: Path, task: str, model: str, arguments: str, *options: str) -> dict[str, Any]:
    """The results of a task, once the command has ended well."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", model]
    command += ["--model_args", f"model=tiny,num_concurrent=2,max_retries=1,{arguments}"]
    command += ["--include_path", str(TASKS), "--tasks", task, "--output_path", "out", *options]
    environment = os.environ | OFFLINE | {"HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=END_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert task in done.stdout
    (written,) = (folder / "out").rglob("results_*.json")
    results = json.loads(written.read_text())["results"][task]
    written.unlink()
    return results


@pytest.fixture(scope="module")
def ours(tiny_url: str, folder: Path) -> dict[str, Any]:
    """What `lostwax eval` says of the examples."""
    command = [sys.executable, "-m", "lostwax", "eval", "asked.jsonl", "--url", tiny_url, "--json"]
    command += ["--max-tokens", "200"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    (task,) = json.loads(done.stdout)["tasks"]
    return task["metrics"]


def test_chats_are_as_right_as_lostwax_eval_says(
    tiny_url: str, folder: Path, ours: dict[str, Any]
) -> None:
    arguments = f"base_url={tiny_url}/v1/chat/completions,tokenizer_backend=None"
    arguments += ",tokenized_requests=False"
    found = _lm_eval(
        folder, "tiny_chat", "local-chat-completions", arguments, "--apply_chat_template"
    )
    assert found["exact_match,last-line"] == pytest.approx(ours["accuracy"])
    assert ours["accuracy"] > 0, "nothing is compared"


def test_given_answers_are_greedy_as_often_as_lostwax_eval_reads_them(
    tiny_url: str, folder: Path, ours: dict[str, Any]
) -> None:
    arguments = f"base_url={tiny_url}/v1/completions,tokenizer={TRAINED}"
    arguments += ",tokenizer_backend=huggingface"
    found = _lm_eval(folder, "tiny_scored", "local-completions", arguments)
    assert found["acc,none"] == pytest.approx(ours["exact"])
    assert 0 < ours["exact"] < 1, "an example of each kind, or nothing is compared"
