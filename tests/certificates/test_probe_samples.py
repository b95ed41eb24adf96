"""Samples meet every block that goes wrong; what is not sampled is finite; ids cover everything."""

from __future__ import annotations

import functools
import importlib.machinery
import math
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from native_kernels import driver_of
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.cpu import BACKEND
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.portable.kernels import linear
from lostwax.backends.proof.certify import certify_artifact
from lostwax.backends.proof.make_probes import identified
from lostwax.backends.proof.samples import TILE, sampled_columns, sampled_heads
from lostwax.backends.runtime import boot_check
from lostwax.backends.runtime import run_probe as runs
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.boot_check import check_boot, code_digest
from lostwax.backends.runtime.run_probe import WrongKernel, row_digests, run_probe
from lostwax.ir.contract.probe import Evidence, Probe
from lostwax.ir.contract.program import HEADS
from lostwax.ir.reference.dtype import Array

WIDTHS = (64, 576, 1536, 2048, 7168, 18432, 24576)
VOCABULARY = 129_280
Fault = Callable[[int], list[range]]
FAULTS: dict[str, Fault] = {
    "the first column": lambda n: [range(1)],
    "the last column": lambda n: [range(n - 1, n)],
    "any one tile": lambda n: [range(i, min(i + TILE, n)) for i in range(0, n, TILE)],
    "the first column of every tile": lambda n: [range(0, n, TILE)],
    "the last column of every tile": lambda n: [range(TILE - 1, n, TILE), range(n - 1, n)],
    "all behind a column": lambda n: [range(i, n) for i in range(0, n, 61)],
    "a lane of every vector": lambda n: [range(i, n, 8) for i in range(8)],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_block_of_wrong_columns_is_met(fault: str, width: int) -> None:
    columns = {int(c) for c in sampled_columns(width)}
    for wrong in FAULTS[fault](width):
        assert columns & set(wrong) or not wrong, f"{fault} of {width}: {wrong}"


def test_vocabularies_are_met_at_their_ends_and_in_stretches() -> None:
    columns = sampled_columns(VOCABULARY)
    assert {0, VOCABULARY - 1} <= set(columns.tolist())
    assert np.diff(columns).max() <= 4 * TILE
    assert columns.size <= 3 * 256
    assert {0, 127} <= set(sampled_heads(128).tolist())


@pytest.fixture(scope="module")
def artifact(torch_artifact: Compiled) -> Path:
    return torch_artifact.artifact


def _driver(artifact: Path) -> CpuDriver:
    return driver_of(artifact)


def _unsampled(artifact: Path) -> tuple[Probe, int]:
    """A probe of a product with a real row that is not sampled."""
    for probe in ArtifactReader(artifact).probes().probes:
        if probe.lowering == "portable_linear":
            (expected,) = probe.expected
            rows = set(range(expected.real)) - set(expected.at)
            if rows:
                return probe, min(rows)
    raise AssertionError("every row of every product is sampled")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_real_row_that_is_not_sampled_is_finite(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    probe, row = _unsampled(artifact)
    run_probe(probe, _driver(artifact))
    exact = linear.linear

    @functools.wraps(exact)
    def spoilt(*tensors: torch.Tensor, **consts: object) -> None:
        exact(*tensors, **consts)  # pyright: ignore  (whatever the launch gives)
        tensors[-1][row, 0] = value

    monkeypatch.setattr(linear, "linear", spoilt)
    with pytest.raises(WrongKernel, match=r"NaN|infinity"):
        run_probe(probe, _driver(artifact))


def test_a_choice_that_too_few_rows_agree_with_is_wrong(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = ArtifactReader(artifact).probes().probes
    probe = next(p for p in probes if any(e.kind == "integers" for e in p.expected))
    assert run_probe(probe, _driver(artifact)).agreement == 1.0

    def nothing(rows: Array) -> Array:
        return np.zeros_like(row_digests(rows))

    monkeypatch.setattr(runs, "row_digests", nothing)
    with pytest.raises(WrongKernel, match=r"0\.0% of rows agree, wants"):
        run_probe(probe, _driver(artifact))


@pytest.mark.parametrize("bound", ["max_error", "rms_error"])
def test_an_error_is_held_against_its_own_bound(artifact: Path, bound: str) -> None:
    """As large as the bound it passes; a bound that is less by as little as can be refuses it."""
    for probe in ArtifactReader(artifact).probes().probes:
        found = getattr(run_probe(probe, _driver(artifact)), bound)
        if found:
            break
    else:
        raise AssertionError("every probe is exact")
    run_probe(msgspec.structs.replace(probe, **{bound: found}), _driver(artifact))
    below = msgspec.structs.replace(probe, **{bound: math.nextafter(found, 0)})
    with pytest.raises(WrongKernel, match=r"error .* max, .* RMS; allowed"):
        run_probe(below, _driver(artifact))


def test_no_probe_stores_what_can_be_drawn(artifact: Path) -> None:
    reader = ArtifactReader(artifact)
    assert all(not probe.refusal for probe in reader.probes().probes)
    assert (artifact / "probes.json").stat().st_size < 1 << 20


def test_certify_runs_the_largest_steps(compile_small: CompileSmall, tmp_path: Path) -> None:
    compile_small(tmp_path / "art", sizes=Sizes(max_context=512, max_tokens=256, max_reqs=2))
    every = list(certify_artifact(tmp_path / "art"))
    assert all(each.record is not None for each in every), [each.error for each in every]
    first = every[0]
    assert first.record is not None
    assert first.record.certificate.state == "executed"
    assert first.record.certificate.tool_versions["code"] == code_digest(BACKEND.kernels)
    programs = {each.program.split(" ")[0]: each.program for each in reversed(every)}
    assert "tokens=256" in programs["extend"]
    assert "rows=2" in programs["pick"]
    assert "rows=64" in programs["score"]


def test_probes_of_heads_have_several_rows(artifact: Path) -> None:
    """So that all ways to sample and padding are among them."""
    heads = [p for p in ArtifactReader(artifact).probes().probes if p.program.startswith(HEADS)]
    assert heads
    assert not [p.program for p in heads if p.program.endswith("-r1")]


CHANGED: dict[str, object] = {
    "lowering": "another",
    "ops": ("core.add",),
    "program": "another",
    "launches": (),
    "given": (),
    "weights": (),
    "expected": (),
    "max_error": 0.5,
    "rms_error": 0.5,
    "refusal": "another",
}
"""Of every field but the id: sizes, seeds, inputs, samples, host functions and binaries."""


def test_every_field_of_a_probe_has_its_part_in_the_id(artifact: Path) -> None:
    assert set(CHANGED) == set(Probe.__struct_fields__) - {"id"}


@pytest.mark.parametrize("field", CHANGED)
def test_an_id_changes_with_what_is_probed(artifact: Path, field: str) -> None:
    probe = next(p for p in ArtifactReader(artifact).probes().probes if p.weights)
    key = ("lowering", "region", {"x": "type"}, {"knob": 1})
    changed = msgspec.structs.replace(probe, **{field: CHANGED[field]})
    assert identified(changed, key).id != identified(probe, key).id


def _deep(probe: Probe) -> dict[str, Probe]:
    """The same probe with one number changed, deep in it."""
    replace = msgspec.structs.replace
    (expected, *_), (weight, *_) = probe.expected, probe.weights
    part = weight.parts[0]
    values = msgspec.structs.replace(part.values, seed=part.values.seed + 1)
    kernel = probe.launches[0]
    return {
        "seed": replace(
            probe,
            weights=(replace(weight, parts=(replace(part, values=values),)),),  # pyright: ignore
        ),
        "samples": replace(probe, expected=(replace(expected, at=expected.at[1:]),)),
        "columns": replace(probe, expected=(replace(expected, columns=(0,)),)),
        "host function": replace(probe, launches=(replace(kernel, function="another:f"),)),
    }


def test_an_id_changes_with_seeds_samples_and_code_that_is_named(artifact: Path) -> None:
    probe = next(
        p for p in ArtifactReader(artifact).probes().probes if p.lowering == "portable_linear"
    )
    key = ("lowering", "region", {}, {})
    ids = {name: identified(changed, key).id for name, changed in _deep(probe).items()}
    assert len({*ids.values(), identified(probe, key).id}) == len(ids) + 1


@pytest.mark.parametrize("place", range(4))
def test_an_id_changes_with_the_choice(artifact: Path, place: int) -> None:
    probe = ArtifactReader(artifact).probes().probes[0]
    key: list[object] = ["lowering", "region", {"x": "type"}, {"knob": 1}]
    other = [*key]
    other[place] = {"knob": 2} if isinstance(key[place], dict) else "another"
    assert identified(probe, tuple(key)).id != identified(probe, tuple(other)).id


def test_an_edited_contract_makes_the_probes_run_again(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(probe: Probe, driver: object) -> Evidence:
        ran.append(probe.id)
        return Evidence(state="executed", max_error=0.0, rms_error=0.0)

    found = find_spec("lostwax.ir.contract")
    assert found is not None
    assert found.submodule_search_locations is not None
    edited = shutil.copytree(Path(found.submodule_search_locations[0]), tmp_path / "contract")

    def elsewhere(name: str) -> importlib.machinery.ModuleSpec | None:
        spec = find_spec(name)
        if name != "lostwax.ir.contract":
            return spec
        copied = importlib.machinery.ModuleSpec(name, None, is_package=True)
        copied.submodule_search_locations = [str(edited)]
        return copied

    monkeypatch.setattr(boot_check, "run_probe", run)
    monkeypatch.setattr(boot_check, "find_spec", elsewhere)
    reader, driver = ArtifactReader(artifact), _driver(artifact)
    first = check_boot(reader, driver, BACKEND.kernels, tmp_path / "kept").ran
    assert check_boot(reader, driver, BACKEND.kernels, tmp_path / "kept").ran == 0
    file = edited / "probe.py"
    file.write_text(file.read_text() + "\n")
    assert check_boot(reader, driver, BACKEND.kernels, tmp_path / "kept").ran == first > 20
