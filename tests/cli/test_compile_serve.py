"""`lostwax compile` and `serve`: every mistake is one sentence with a remedy, and status 1 or 2."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from command_line import QUICK, Run, lostwax, one_sentence
from small_fixtures import Compiled

from lostwax.backends.plan.memory_plan import MemoryPlan, plan_memory
from lostwax.backends.runtime.artifact_reader import ArtifactReader


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


def test_compile_json_prints_the_manifests_digest(
    run: Run, small_artifact: Compiled, tmp_path: Path
) -> None:
    status, out, err = run(
        "compile", small_artifact.checkpoint, "-o", tmp_path / "a", *QUICK, "--json"
    )
    assert status == 0
    report = json.loads(out)
    manifest = ArtifactReader(tmp_path / "a").manifest
    assert report["digest"] == manifest.digest == small_artifact.manifest.digest
    assert report["programs"] == len(manifest.programs)
    assert "capture" in err, "phases go to standard error"
    note = json.loads((tmp_path / "a" / "checkpoint.json").read_text())
    assert Path(note["path"]) == small_artifact.checkpoint.resolve()


def test_compile_says_what_the_memory_plan_warns_of(
    run: Run, small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(artifact: Path) -> MemoryPlan:
        return replace(plan_memory(artifact), device=1, graphs=1000)

    monkeypatch.setattr("lostwax.backends.plan.memory_plan.plan_memory", odd)
    status, out, err = run("compile", small_checkpoint, "-o", tmp_path / "a", *QUICK)
    assert status == 0
    for words in (" MiB a rank are more than the 0.0 MiB that", "1000 programs will be captured"):
        assert words in err
        assert words not in out


def test_formats_on_the_command_line_reach_the_planes(
    run: Run, small_checkpoint: Path, tmp_path: Path
) -> None:
    formats = ("--kv-layout", "fp8_656", "--indexer-dtype", "fp8_ue8m0")
    status, _, _ = run("compile", small_checkpoint, "-o", tmp_path / "a", *QUICK, *formats)
    assert status == 0
    planes = {p.name: p for p in ArtifactReader(tmp_path / "a").manifest.planes}
    latent, index_key = planes["latent"], planes["index_key"]
    assert (latent.layout, index_key.layout) == ("fp8_656", "index_paged")
    # at 32 + 16 and 32: one scale a row, rope keys in bf16
    assert latent.page_bytes == 64 * (32 + 4 + 2 * 16)
    assert index_key.page_bytes == 64 * (32 + 4)


# What is asked for, with CKPT and OUT in their places, and what the one line says.
MISTAKES: dict[str, tuple[str | list[str], str]] = {
    "a target's typo": ("CKPT -o OUT --target cqu", "unknown target 'cqu'. Did you mean 'cpu'?"),
    "no checkpoint": ("CKPT/none -o OUT", "does not exist; give the folder that holds config.json"),
    "not an artifact": ("CKPT -o CKPT", "exists and is no artifact; give another -o"),
    "a malformed rule": ("CKPT -o OUT --lowering foo", "'foo' is not [SEGMENT:]OP=NAME, such as"),
    "a rule's segment": (
        "CKPT -o OUT --lowering x:a.b=c",
        "must be one of extend, decode, draft, pick, sample, score, not 'x'",
    ),
    "an unknown lowering": (
        "CKPT -o OUT --lowering mla.attend=portable_attend_absorbd",
        "Did you mean 'portable_attend_absorbed'?",
    ),
    "a kernel of others": (
        "CKPT -o OUT --target cuda-sm90a --lowering mla.attend=fa3",
        "fa3 is FlashAttention 3 as sglang-kernel holds it",
    ),
    "a backend of others": (
        "CKPT -o OUT --target cuda-sm90a --nsa-prefill-backend flashmla_auto",
        "flashmla_auto is SGLang's rule and no kernel",
    ),
    "another target's backend": (
        "CKPT -o OUT --dsa-decode-backend flashmla_kv",
        "no lowering 'flashmla_kv' on this target",
    ),
    "a backend without a name": (
        ["CKPT", "-o", "OUT", "--dsa-decode-backend", ""],
        "no lowering '' on this target",
    ),
    "an op's typo": ("CKPT -o OUT --lowering mla.atend=x", "Did you mean 'mla.attend'?"),
    "no records": ("CKPT -o OUT --records CKPT/none", "is no folder of records; give the folder"),
    "no context": ("CKPT -o OUT --max-context 0", "--max-context must be in 1..2147483647, not 0"),
    "fp8 activations without fp8 weights": (
        "CKPT -o OUT --activations fp8",
        "no weight is held in fp8; it needs an FP8 checkpoint",
    ),
    "too many drafts": ("CKPT -o OUT --drafts 4", "--drafts must be in 0..3, not 4"),
    "no MTP layer": ("CKPT -o OUT --drafts 1", "needs a checkpoint with one MTP layer"),
    "dependent rows": (
        "CKPT -o OUT --target null --batch-invariant",
        "--batch-invariant: its rows may depend on the rows beside them",
    ),
    "no room": ("CKPT -o OUT --budget 10", "the budget is 10"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_status_1(
    run: Run, small_checkpoint: Path, tmp_path: Path, mistake: str
) -> None:
    line, expected = MISTAKES[mistake]
    places = {"CKPT": str(small_checkpoint), "OUT": str(tmp_path / "out")}
    words = line.split() if isinstance(line, str) else line
    words = [word.replace("CKPT", places["CKPT"]).replace("OUT", places["OUT"]) for word in words]
    status, out, err = run("compile", *words)
    assert (status, out) == (1, "")
    messages = [x for x in err.splitlines() if x.startswith("lostwax: ")]
    assert len(messages) == 1
    assert expected in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("complie x", 'Did you mean "compile"?'),
        ("compile CKPT -o OUT --dtpe fp32", "Did you mean --dtype?"),
        ("compile CKPT -o OUT --dtype fp23", 'Did you mean "fp32"?'),
        ("compile CKPT", "-o requires an argument"),
        ("run --max-tokens many", 'unable to convert "many" into int'),
        ("serve CKPT --prot 8000", "Did you mean --port?"),
    ],
)
def test_a_typo_on_the_command_line_is_status_2_with_a_suggestion(
    run: Run, small_checkpoint: Path, tmp_path: Path, line: str, expected: str
) -> None:
    line = line.replace("CKPT", str(small_checkpoint)).replace("OUT", str(tmp_path / "out"))
    status, out, err = run(*line.split())
    assert (status, out) == (2, "")
    assert expected in one_sentence(err)
    assert err.count("\n") == 1


def test_serve_says_what_it_needs(run: Run, small_artifact: Compiled, tmp_path: Path) -> None:
    cases = {
        (str(tmp_path),): "is neither an artifact",
        (
            str(small_artifact.artifact),
        ): "does not say where its checkpoint lies; give --checkpoint",
        (
            str(small_artifact.artifact),
            "--checkpoint",
            str(tmp_path / "none"),
        ): "does not exist; give the folder that holds config.json",
        (
            str(small_artifact.artifact),
            "--checkpoint",
            str(small_artifact.checkpoint),
            "--host",
            "0.0.0.0",
        ): "allow it with --insecure",
    }
    for arguments, expected in cases.items():
        status, _, err = run("serve", *arguments)
        assert status == 1
        assert expected in err
        assert len(err.splitlines()) == 1


def test_serve_refuses_a_damaged_artifact_before_it_listens(
    run: Run, small_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    status, out, err = run("serve", tmp_path, "--checkpoint", small_checkpoint)
    assert (status, out) == (1, "")
    assert "recompile the artifact" in err
    assert "listening" not in err


def test_help_names_every_command_with_a_sentence(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    for line in ("compile Compile a checkpoint", "serve Serve an artifact", "explain What was"):
        assert line in " ".join(out.split())
