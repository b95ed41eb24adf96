"""`lostwax explain` says what was chosen, once, and where choices differ."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from small_fixtures import Compiled

from lostwax.backends.artifact_writer import seal, write
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.cli.explain import UnknownOp, UnknownProgram, explain
from lostwax.cli.option_types import OptionRefused
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.choice import Choices, Loser, RegionChoice
from lostwax.ir.contract.probe import STEP_EVIDENCE, Certificates, Evidence
from lostwax.ir.contract.step_layout import LAYOUT

NAMES = ("decode-t1-b1-p8-all", "decode-t1-b1-p8-chosen", "decode-t2-b2-p8-chosen")


def choice(
    block: str, ops: str, lowering: str, us: float, *losers: Loser, source: str = "estimate"
) -> RegionChoice:
    return RegionChoice(
        block=block,
        ops=tuple(ops.split(" + ")),
        region="d" * 64,
        lowering=lowering,
        us=us,
        source=source,
        knobs={"row_tile": 64} if lowering == "tiled" else {},
        losers=losers,
    )


def block(attend: str, us: float) -> tuple[RegionChoice, ...]:
    other = Loser(lowering="expanded", reason="costs more", us=us + 1)
    refused = Loser(lowering="wgmma", reason="target fact matrix_units is ('avx2',)")
    return tuple(
        c
        for kind in ("dense", "moe")
        for c in (
            choice(kind, "core.rms_norm", "norm", 2.0),
            choice(kind, "core.rms_norm", "norm", 2.0),
            choice(kind, "mla.attend", attend, us, other, refused),
        )
    )


@pytest.fixture
def artifact(torch_artifact: Compiled, tmp_path: Path) -> Path:
    """An artifact of which three programs' choices are given, so that no price model matters; the
    others have none."""
    reader = ArtifactReader(torch_artifact.artifact)
    embed = choice("embed", "core.embed", "embed", 1.0, source="record")
    refs = reader.manifest.programs
    choices = Choices(
        programs=dict.fromkeys((Path(ref.file).stem for ref in refs), ())
        | {
            NAMES[0]: (embed, *block("absorbed", 10.0)),
            NAMES[1]: (embed, *block("absorbed", 20.0)),
            NAMES[2]: (embed, *block("tiled", 30.0)),
        },
        storage={"dense": ("a", "b@10"), "moe": ("c",)},
        storage_losses={"dense": {"b": 0.25}, "moe": {}},
    )
    write(tmp_path, "choices.json", canonical(choices))
    for ref in refs:
        write(tmp_path, ref.file, (torch_artifact.artifact / ref.file).read_bytes())
    seal(tmp_path, reader.manifest)
    return tmp_path


def on_device(artifact: Path) -> str:
    """Say that the device keeps the state, as a GPU's artifact does."""
    manifest = ArtifactReader(artifact).manifest
    return seal(artifact, msgspec.structs.replace(manifest, step_layout=LAYOUT)).digest


def test_a_launch_of_the_step_says_that_nothing_chose_it(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = on_device(artifact)
    explain(artifact, "step.derive")
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"step.derive in {NAMES[0]}, {NAMES[1]}, ")
    assert "extend-" in said
    assert "draft-" not in said
    assert "pick-" not in said
    assert "no lowering competes with it" in said
    assert "compiled, never ran here: the first `serve` runs it over drawn steps" in said
    ran = Evidence(what="the step (6 kernels)", state="executed")
    proof = Certificates(artifact=digest, device="d", code="c", evidence={STEP_EVIDENCE: ran})
    write(artifact, "certificates.json", canonical(proof))
    explain(artifact, "step.send", segment="pick")
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("step.send in pick-")
    assert "proof executed, equal to numpy over drawn steps: the step (6 kernels)" in said


def test_a_launch_of_the_step_that_is_not_there_is_refused(artifact: Path) -> None:
    with pytest.raises(UnknownOp, match=r"no program runs 'step.derive': on cpu the host makes"):
        explain(artifact, "step.derive")
    on_device(artifact)
    with pytest.raises(UnknownOp, match=r"Did you mean 'step.derive'\? Known: step.advance, "):
        explain(artifact, "step.deriv")


def test_known_ops_hold_launches_of_the_step_where_the_device_makes_it(artifact: Path) -> None:
    with pytest.raises(UnknownOp, match=r"Known: (?!.*step\.)core\.embed, "):
        explain(artifact, "step")
    on_device(artifact)
    with pytest.raises(UnknownOp, match=r"Known: core\.embed, .*, step\.advance, step\.derive, "):
        explain(artifact, "step")


TABLES = """\
embed in all 3 programs that run it:
    embed                                  core.embed
dense in decode-t1-b1-p8-all, decode-t1-b1-p8-chosen:
    norm                                2x core.rms_norm
    absorbed                               mla.attend
dense in decode-t2-b2-p8-chosen, unlike the first:
  - absorbed                               mla.attend
  + tiled                                  mla.attend
moe in decode-t1-b1-p8-all, decode-t1-b1-p8-chosen:
    norm                                2x core.rms_norm
    absorbed                               mla.attend
moe in decode-t2-b2-p8-chosen, unlike the first:
  - absorbed                               mla.attend
  + tiled                                  mla.attend
weights of dense: b@10
weights of moe: row-major, as in the checkpoint
"""
ATTEND = """\
decode-t1-b1-p8-all (max_kv <= 32) dense, moe: mla.attend
  winner absorbed: 10.00 us (estimate)
  loser  expanded: 11.00 us, costs more
  loser  wgmma: target fact matrix_units is ('avx2',)
decode-t1-b1-p8-chosen (always) dense, moe: mla.attend
  winner absorbed: 20.00 us (estimate)
  loser  expanded: 21.00 us, costs more
  loser  wgmma: target fact matrix_units is ('avx2',)
decode-t2-b2-p8-chosen (always) dense, moe: mla.attend
  winner tiled row_tile=64: 30.00 us (estimate)
  loser  expanded: 31.00 us, costs more
  loser  wgmma: target fact matrix_units is ('avx2',)
flips  dense, decode, chosen: absorbed up to decode-t1-b1-p8-chosen, tiled from
    decode-t2-b2-p8-chosen
flips  moe, decode, chosen: absorbed up to decode-t1-b1-p8-chosen, tiled from decode-t2-b2-p8-chosen
"""


def test_every_choice_is_printed_once(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(artifact)
    assert capsys.readouterr().out == TABLES


def test_an_op_is_explained_with_losers_reasons_and_flips(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(artifact, "mla.attend")
    assert capsys.readouterr().out == ATTEND


def test_one_program_or_segment_can_be_asked_for(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(artifact, "mla.attend", program=NAMES[0])
    assert capsys.readouterr().out.count("winner") == 1
    explain(artifact, "core.embed", segment="decode")
    assert "1.00 us (record)" in capsys.readouterr().out


def test_json_is_what_was_recorded(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(artifact, json_=True)
    recorded = json.loads((artifact / "choices.json").read_bytes())
    assert json.loads(capsys.readouterr().out) == recorded


def test_typos_get_a_suggestion(artifact: Path) -> None:
    with pytest.raises(UnknownOp, match=r"no program runs 'mla.atend'. Did you mean 'mla.attend'"):
        explain(artifact, "mla.atend")
    with pytest.raises(UnknownProgram, match="Did you mean 'decode-t1-b1-p8-all'"):
        explain(artifact, program="decode-t1-b1-p8-al")


def test_every_region_of_a_real_artifact_is_explained(
    small_artifact: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(small_artifact.artifact)
    printed = capsys.readouterr().out
    reader = ArtifactReader(small_artifact.artifact)
    choices = reader.structure("choices.json", Choices)
    for lowering in {c.lowering for p in choices.programs.values() for c in p}:
        assert f" {lowering} " in printed
    assert len(printed.splitlines()) < 200


@pytest.mark.parametrize("arguments", [("--json",), ("core.embed", "--segment", "decode")])
def test_a_reader_that_leaves_early_gets_no_error(
    small_artifact: Compiled, arguments: tuple[str, ...]
) -> None:
    """Much output fails while it is printed, little when it is flushed."""
    command = [sys.executable, "-m", "lostwax", "explain", str(small_artifact.artifact), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_winner_has_its_proof_and_both_prices(
    small_artifact: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = ArtifactReader(small_artifact.artifact)
    choices = reader.structure("choices.json", Choices)
    entries = {c.probe: Evidence(state="executed", max_error=1e-3, rms_error=1e-4)
               for c in next(iter(choices.programs.values())) if c.probe}  # fmt: skip
    explain(small_artifact.artifact, "mla.attend", certificates=tmp_path)
    assert "proof  compiled, never ran here" in capsys.readouterr().out
    found = Certificates(
        artifact=reader.manifest.digest, device="a device", code="c", evidence=entries
    )
    (tmp_path / f"{reader.manifest.digest}.json").write_bytes(canonical(found))
    name = next(iter(choices.programs))
    explain(small_artifact.artifact, "mla.attend", program=name, certificates=tmp_path)
    assert "proof  executed, error 1.0e-03 max, 1.0e-04 RMS" in capsys.readouterr().out
    explain(small_artifact.artifact, certificates=tmp_path)
    assert "lowerings executed on a device" in capsys.readouterr().out


def test_a_measured_price_stands_beside_its_estimate(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = ArtifactReader(artifact)
    measured = msgspec.structs.replace(
        choice("dense", "mla.attend", "absorbed", 10.0, source="record"), estimate_us=12.5
    )
    names = [Path(ref.file).stem for ref in reader.manifest.programs]
    programs = dict.fromkeys(names, ()) | dict.fromkeys(NAMES, (measured,))
    choices = Choices(programs=programs, storage={}, storage_losses={})
    write(artifact, "choices.json", canonical(choices))
    seal(artifact, reader.manifest)
    explain(artifact, "mla.attend")
    assert "10.00 us (record), estimated 12.50 us" in capsys.readouterr().out


def test_the_share_of_what_a_step_prepares_stands_beside_the_price(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = ArtifactReader(artifact)
    shared = msgspec.structs.replace(
        choice("dense", "mla.attend", "absorbed", 10.0), estimate_us=10.0, prepared_us=5.5
    )
    names = [Path(ref.file).stem for ref in reader.manifest.programs]
    programs = dict.fromkeys(names, ()) | dict.fromkeys(NAMES, (shared,))
    choices = Choices(programs=programs, storage={}, storage_losses={})
    write(artifact, "choices.json", canonical(choices))
    seal(artifact, reader.manifest)
    explain(artifact, "mla.attend")
    said = " ".join(capsys.readouterr().out.split())
    assert "10.00 us (estimate), 5.50 us of it once a step" in said


def test_no_line_is_longer_than_the_page(
    small_artifact: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(small_artifact.artifact)
    explain(small_artifact.artifact, "mla.attend")
    explain(small_artifact.artifact, "sample.pick")
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    names = [Path(ref.file).stem for ref in small_artifact.manifest.programs]
    assert all(re.search(rf"(?<![\w-]){name}(?![\w-])", out) for name in names), "names stay whole"


def test_json_is_of_all_choices_and_takes_no_selection(small_artifact: Compiled) -> None:
    with pytest.raises(OptionRefused, match="leave OP, --segment and --program out"):
        explain(small_artifact.artifact, "mla.attend", json_=True)
