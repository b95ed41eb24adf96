"""`--batch-invariant` chooses one lowering an op, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from small_fixtures import Compiled

from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.batch_invariance import NotInvariant, OnePrice, require_invariant
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Cover, Forced, NoCover, find_candidates, find_sites
from lostwax.backends.plan.price import NoMeasurements
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.variants import Variant, specialise_variants
from lostwax.frontend.capture import Captured
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.program import Bucket, Guard, Segment
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run

INVARIANT = {low.name for low in lowerings(CPU) if low.row_invariant}


@pytest.fixture(scope="module")
def choices(
    compile_small: Callable[..., Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Choices:
    out = tmp_path_factory.mktemp("invariant") / "artifact"
    assert compile_small(out, batch_invariant=True).batch_invariant
    return msgspec.json.decode((out / "choices.json").read_bytes(), type=Choices)


def test_only_lowerings_with_independent_rows_are_chosen(choices: Choices) -> None:
    chosen = {c.lowering for program in choices.programs.values() for c in program}
    assert chosen <= INVARIANT
    reasons = {
        loser.reason
        for program in choices.programs.values()
        for choice in program
        for loser in choice.losers
        if loser.lowering not in INVARIANT
    }
    assert reasons == {"--batch-invariant: its rows may depend on the rows beside them"}


def test_a_region_has_one_lowering_with_the_first_knobs_in_all_programs(choices: Choices) -> None:
    first = {low.name: low.default_knobs() for low in lowerings(CPU)}
    found: dict[str, set[str]] = {}
    for program in choices.programs.values():
        for choice in program:
            found.setdefault(choice.region, set()).add(choice.lowering)
            assert choice.knobs == first[choice.lowering]
    assert all(len(names) == 1 for names in found.values())


def test_without_it_programs_choose_by_their_sizes(small_artifact: Compiled) -> None:
    text = (small_artifact.artifact / "choices.json").read_bytes()
    programs = msgspec.json.decode(text, type=Choices).programs
    chosen = {c.lowering for program in programs.values() for c in program}
    assert not chosen <= INVARIANT
    assert not small_artifact.manifest.batch_invariant


def test_a_target_without_independent_rows_is_refused_with_the_reason(
    compile_small: Callable[..., Manifest], tmp_path: Path
) -> None:
    with pytest.raises(NoCover, match="--batch-invariant: its rows may depend"):
        compile_small(tmp_path / "out", target="null", batch_invariant=True)


def test_a_forced_lowering_is_refused_where_its_rows_depend_on_one_another(
    compile_small: Callable[..., Manifest], tmp_path: Path
) -> None:
    with pytest.raises(NoCover, match="portable_linear: --batch-invariant"):
        compile_small(
            tmp_path / "out",
            batch_invariant=True,
            forced=(Forced("quant.linear", "portable_linear"),),
        )


def _covers(captured: Captured, bucket: Bucket, forced: tuple[Forced, ...]) -> dict[str, Cover]:
    from lostwax.backends.plan.choose_storage import choose_storage
    from lostwax.backends.plan.cover import cover

    typed = run(captured.module.clone(), (AssignFormatsPass(dtype="f32"),), None)
    segment: Segment = "extend" if bucket.tokens else "pick"
    variant = Variant(segment, every=True)
    module = specialise_variants(typed, [variant], dump_dir=None)[variant]
    context = ProgramContext(module, CPU, segment, bucket, Guard("all", selects_all=True))
    found: dict[str, Cover] = {}
    for name, block in context.blocks.items():
        sites = find_sites(block, lowerings(CPU))
        cset = find_candidates(context, block, sites, NoMeasurements(), forced)
        storage, _ = choose_storage([cset])
        found[name] = cover(cset, storage.refusal)
    return found


def test_two_ways_to_compute_one_op_are_named(small_capture: Captured) -> None:
    bucket = Bucket(8, 2, 1)
    one = _covers(small_capture, bucket, (Forced("core.rope", "portable_rope"),))
    two = _covers(small_capture, bucket, (Forced("core.rope", "portable_rope_table"),))
    groups = {name: [name] for name in one}
    require_invariant([one, one], groups)
    with pytest.raises(NotInvariant, match=r"core\.rope .*portable_rope in .*portable_rope_table"):
        require_invariant([one, two], groups)


def test_a_lowering_costs_the_same_in_every_program(small_capture: Captured) -> None:
    pricing = OnePrice()
    prices: set[int] = set()
    for rows in (1, 64):
        covers = _covers(small_capture, Bucket(rows=rows), ())
        candidates: list[Candidate] = [p.candidate for p in covers["pick_head"].chosen]
        (pick,) = [c for c in candidates if "pick" in c.name]
        prices.add(pricing.price(pick).picoseconds)
    assert len(prices) == 1
