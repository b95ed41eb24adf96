"""Tuning records decide before estimates do, and only where everything that matters is equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

import pytest
from native_kernels import torch_alone
from small import PROMPT, greedy
from small_fixtures import Compiled

from lostwax.backends.lowering import Work
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.portable.lowerings.linear import LINEAR
from lostwax.backends.records.measurements import NoRecords, open_measurements
from lostwax.backends.records.record_key import record_key
from lostwax.backends.records.store import BadRecord, RecordStore, record_files
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.load import load
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.choice import Choices, RegionChoice
from lostwax.ir.contract.program import HEADS, HostCall
from lostwax.ir.contract.record import Certificate, Record, State

SKU = "H200"
CompileSmall = Callable[..., Manifest]


@dataclass(frozen=True)
class Tuner:
    """Files a record for each candidate that it is asked for and that `us` gives a time."""

    store: RecordStore
    us: Callable[[Candidate], float | None]
    state: State = "executed"
    knobs: tuple[Mapping[str, int], ...] = ({},)
    sku: str = SKU

    def best(self, candidate: Candidate) -> None:
        us = self.us(candidate)
        if us is None:
            return
        for i, knobs in enumerate(self.knobs):
            certificate = Certificate(
                state=self.state, max_error=0.0, rms_error=0.0, input_digest="d"
            )
            key, samples = record_key(candidate, self.sku), (us * (i + 1),) * 3
            self.store.put(
                Record(key=key, knobs=dict(knobs), samples_us=samples, certificate=certificate)
            )


def slow_gate_up(candidate: Candidate) -> float | None:
    return 900.0 if candidate.name.startswith("portable_gate_up") else None


def silu_choices(artifact: Path) -> dict[str, list[RegionChoice]]:
    choices = ArtifactReader(artifact).structure("choices.json", Choices)
    return {n: [c for c in p if "core.silu_mul" in c.ops] for n, p in choices.programs.items()}


def answers(artifact: Path, checkpoint: Path) -> list[int]:
    return [token for token, _ in greedy(load(artifact, checkpoint=checkpoint), PROMPT, 12)]


@pytest.fixture(scope="module")
def slow_in_decode(
    compile_small: CompileSmall, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Records that say gate_up is slow in decode, and the artifact compiled with them."""
    folder = tmp_path_factory.mktemp("records")
    tuner = Tuner(
        RecordStore((folder / "store",)),
        lambda c: slow_gate_up(c) if c.segment == "decode" else None,
    )
    with torch_alone():
        compile_small(folder / "first", measurements=tuner)
        measurements = open_measurements(folder / "store", lambda: SKU)
        compile_small(folder / "second", measurements=measurements)
    return folder / "store", folder / "second"


def test_a_region_is_not_chosen_where_a_record_says_that_it_is_slow(
    slow_in_decode: tuple[Path, Path], small_artifact: Compiled
) -> None:
    _, artifact = slow_in_decode
    for name, found in silu_choices(artifact).items():
        if name.split("-")[0] in HEADS:
            continue
        apart = name.startswith("decode")
        assert {c.ops == ("core.silu_mul",) for c in found} == {apart}
        slow = {x.us for c in found for x in c.losers if x.lowering == "portable_gate_up"}
        assert slow == ({900.0} if apart else set())
    expected = answers(small_artifact.artifact, small_artifact.checkpoint)
    assert answers(artifact, small_artifact.checkpoint) == expected


def test_decode_reads_slices_of_the_concatenation_that_prefill_wants(
    slow_in_decode: tuple[Path, Path],
) -> None:
    reader = ArtifactReader(slow_in_decode[1])
    stored = "mlp.gate_proj.weight+mlp.up_proj.weight"
    found: dict[str, set[tuple[tuple[int, ...], int]]] = {}
    for ref in reader.manifest.programs:
        for launch in reader.program(ref.file).blocks.get("dense", ()):
            assert isinstance(launch, HostCall)
            for view in launch.args:
                if view is not None and view.name == stored:
                    found.setdefault(ref.segment, set()).add((view.shape, view.offset))
    assert found == {
        "extend": {((128, 64), 0)},
        "decode": {((64, 64), 0), ((64, 64), 64 * 64 * 4)},
    }


def test_the_same_records_give_the_same_digest(
    slow_in_decode: tuple[Path, Path], compile_small: CompileSmall, tmp_path: Path
) -> None:
    store, artifact = slow_in_decode
    with torch_alone():
        again = compile_small(tmp_path / "a", measurements=open_measurements(store, lambda: SKU))
    assert again.digest == ArtifactReader(artifact).manifest.digest


def test_a_recorded_knob_is_the_one_that_runs(compile_small: CompileSmall, tmp_path: Path) -> None:
    tuner = Tuner(
        RecordStore((tmp_path / "store",)),
        lambda c: 0.5 if c.name == "portable_index_topk" and c.segment == "extend" else None,
        knobs=({"row_tile": 32}, {"row_tile": 128}, {"row_tile": 1024}),
    )
    compile_small(tmp_path / "first", measurements=tuner)
    compile_small(tmp_path / "a", measurements=open_measurements(tmp_path / "store", lambda: SKU))
    reader = ArtifactReader(tmp_path / "a")
    tiles = {
        launch.consts["row_tile"]
        for ref in reader.manifest.programs
        if ref.segment == "extend" and ref.guard.name == "chosen"
        for launches in reader.program(ref.file).blocks.values()
        for launch in launches
        if isinstance(launch, HostCall) and launch.op == "portable_index_topk"
    }
    assert tiles == {32}


def first_candidate(compile_small: CompileSmall, folder: Path, name: str) -> Candidate:
    """A candidate of a compile, for asking about its key."""
    seen: list[Candidate] = []
    tuner = Tuner(RecordStore(()), lambda c: seen.append(c) if c.name == name else None)
    compile_small(folder / "asked", measurements=tuner)
    return seen[0]


def test_executed_records_decide_before_others(compile_small: CompileSmall, tmp_path: Path) -> None:
    candidate = first_candidate(compile_small, tmp_path, "portable_linear")
    store = RecordStore((tmp_path / "store",))
    Tuner(store, lambda c: 5.0, "interpreted", ({"row_tile": 1024},)).best(candidate)
    assert open_measurements(tmp_path / "store", lambda: SKU).best(candidate) == (
        5.0,
        {"row_tile": 1024},
    )
    Tuner(store, lambda c: 7.0).best(candidate)
    assert open_measurements(tmp_path / "store", lambda: SKU).best(candidate) == (
        7.0,
        {"row_tile": 4096},
    )


def test_records_of_another_model_of_device_do_not_count(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    candidate = first_candidate(compile_small, tmp_path, "portable_linear")
    store = tmp_path / "store"
    Tuner(RecordStore((store,)), lambda c: 5.0).best(candidate)
    with pytest.raises(NoRecords, match=f"no record of a H20, it has those of {SKU}; .*--sku"):
        open_measurements(store, lambda: "H20")
    with pytest.raises(NoRecords, match=r"not here \(it has no driver\); name with --sku"):
        open_measurements(store, absent)
    assert open_measurements(None, pytest.fail).best(candidate) is None
    other = Tuner(RecordStore((store,)), lambda c: 3.0, sku="H20")
    other.best(candidate)
    found = [open_measurements(store, lambda s=s: s).best(candidate) for s in (SKU, "H20")]
    assert [us for us, _ in filter(None, found)] == [5.0, 3.0]


def absent() -> str:
    raise DeviceUnavailable("it has no driver", "install one")


def _emit_nothing(match: object, knobs: object) -> tuple[HostCall, ...]:
    return ()


def _no_work(match: object, knobs: object) -> Work:
    return Work(0, 0)


def test_a_key_changes_with_what_changes_the_answer_and_with_nothing_else(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    candidate = first_candidate(compile_small, tmp_path, "portable_linear")
    key = record_key(candidate, SKU)
    assert record_key(changed(candidate), SKU) == key
    other_code = changed(LINEAR[0], emit=_emit_nothing)
    assert record_key(changed(candidate, lowering=other_code), SKU).source != key.source
    other_work = changed(LINEAR[0], work=_no_work)  # an estimate is no code
    assert record_key(changed(candidate, lowering=other_work), SKU) == key
    assert str(tmp_path) not in str(key)
    assert key.values["weight"] == "f32 [32, 64]"


def test_a_damaged_or_missing_store_stops_the_compile_with_the_remedy(
    slow_in_decode: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(NoRecords, match="is no folder of records; give the folder"):
        open_measurements(tmp_path / "missing", lambda: SKU)
    source = next(record_files(slow_in_decode[0]))
    target = tmp_path / source.parent.name / source.name
    target.parent.mkdir()
    target.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(BadRecord, match="torn"):
        open_measurements(tmp_path, lambda: SKU)
