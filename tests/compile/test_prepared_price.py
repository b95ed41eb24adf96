"""What a lowering prepares once a step has a price, shared by the layers that use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from small_fixtures import CompileSmall
from xdsl.parser import Parser

from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.null.target import NULL
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import cover, find_candidates, find_sites
from lostwax.backends.plan.prepared_price import prepared_us, with_prepared
from lostwax.backends.plan.price import Measurements, NoMeasurements
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.choice import Choices, RegionChoice
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.program import Bucket, Guard
from lostwax.ir.contract.step import StepOp
from lostwax.ir.contract.step_kernel import Prepared, StepKernel
from lostwax.ir.dialects import context
from lostwax.ir.dialects.core import AddOp
from lostwax.ir.region import Region

FULL = "!lostwax.tensor<[T, 8], f32>"
BLOCK = f"""
func.func @NAME(%a: {FULL}, %b: {FULL}) -> {FULL} {{
  %s = "core.add"(%a, %b) : ({FULL}, {FULL}) -> {FULL}
  func.return %s : {FULL}
}}
"""
ADD = Region.single(AddOp)
WITH_LIST, WITHOUT = "a list once a step", "without a list"


def listing(us: float | None, name: str = "list", **sizes: tuple[int, ...]) -> StepKernel:
    source = KernelSource(language="cuda", path=f"{name}.cu", symbol=name)
    outputs = tuple((output, "f32", shape) for output, shape in sizes.items())
    return StepKernel(source=source, arguments=(), outputs=outputs, grid=(1, 1, 1), us=us)


def lowering(name: str, us: int, *prepared: Prepared) -> Lowering:
    """One whose launches take `us`: the null target's cost a microsecond each."""

    def prepare(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
        return prepared

    return Lowering(
        name=name,
        pattern=ADD,
        emit=lambda match, knobs: (),
        prepare=prepare,
        work=lambda match, knobs: Work(0, 0, us),
    )


def chosen(
    layers: Mapping[str, int], *given: Lowering, measured: Measurements | None = None
) -> dict[str, list[tuple[str, float]]]:
    """By block kind what is chosen, with its price, in a program with so many layers of each."""
    blocks = "".join(BLOCK.replace("NAME", kind) for kind in layers)
    calls, value = list[str](), "%a"
    for layer, kind in enumerate(k for k, count in layers.items() for _ in range(count)):
        calls.append(
            f'%y{layer} = core.call @{kind}({value}, %b) layer {layer} weights "" :'
            f" ({FULL}, {FULL}) -> {FULL}"
        )
        value = f"%y{layer}"
    body = f"func.func @decode(%a: {FULL}, %b: {FULL}) -> {FULL} {{\n" + "\n".join(calls)
    text = f"{blocks}{body}\nfunc.return {value} : {FULL}\n}}"
    module = Parser(context(), text).parse_module()
    program = ProgramContext(module, NULL, "decode", Bucket(4, 4, 1, 4), Guard("always"))
    sets = {
        name: find_candidates(
            program, block, find_sites(block, given), measured or NoMeasurements()
        )
        for name, block in program.blocks.items()
    }
    return {
        name: [(p.candidate.name, p.price.micros) for p in cover(found, lambda c: None).chosen]
        for name, found in with_prepared(sets).items()
    }


def test_a_dear_list_is_made_for_many_layers_and_not_for_one() -> None:
    both = lowering(WITH_LIST, 2, listing(12.2)), lowering(WITHOUT, 3)
    assert chosen({"mtp": 1}, *both) == {"mtp": [(WITHOUT, 3.0)]}
    assert chosen({"moe": 61}, *both) == {"moe": [(WITH_LIST, pytest.approx(2.2))]}


def test_blocks_of_all_kinds_share_what_is_equal() -> None:
    both = lowering(WITH_LIST, 2, listing(12.2)), lowering(WITHOUT, 3)
    (dense,), (moe,) = chosen({"dense": 3, "moe": 58}, *both).values()
    assert dense == moe == (WITH_LIST, pytest.approx(2.2))


def test_lowerings_of_one_place_share_nothing_between_them() -> None:
    """Only one of the two can be chosen there, and it then pays for all."""
    two = lowering(WITH_LIST, 2, listing(1.6)), lowering("another with it", 2, listing(1.6))
    assert chosen({"mtp": 1}, *two, lowering(WITHOUT, 3)) == {"mtp": [(WITHOUT, 3.0)]}


def test_what_differs_is_made_and_paid_apart() -> None:
    several = lowering(WITH_LIST, 1, listing(4.0), listing(8.0, "another"))
    assert chosen({"moe": 2}, several) == {"moe": [(WITH_LIST, pytest.approx(7.0))]}


def test_what_is_asked_for_twice_is_paid_once() -> None:
    assert chosen({"mtp": 1}, lowering(WITH_LIST, 1, listing(4.0), listing(4.0))) == {
        "mtp": [(WITH_LIST, pytest.approx(5.0))]
    }


def test_a_record_holds_the_launches_of_a_layer_and_pays_for_the_rest() -> None:
    class Records:
        def best(self, candidate: Candidate) -> tuple[float, Mapping[str, int]]:
            return {WITH_LIST: 2.0, WITHOUT: 3.0}[candidate.name], {}

    both = lowering(WITH_LIST, 9, listing(12.2)), lowering(WITHOUT, 9)
    assert chosen({"mtp": 1}, *both, measured=Records()) == {"mtp": [(WITHOUT, 3.0)]}
    assert chosen({"moe": 61}, *both, measured=Records()) == {
        "moe": [(WITH_LIST, pytest.approx(2.2))]
    }


def test_what_nobody_timed_is_a_launch_that_writes_its_outputs() -> None:
    target = msgspec.structs.replace(CPU, bandwidth_gbps=100.0, launch_us=3.0)
    large = listing(None, a=(1000, 100), b=(150, 1000))
    assert prepared_us(large, target) == pytest.approx(3 + 10)
    assert prepared_us(msgspec.structs.replace(large, us=0.0), target) == 0
    host = StepOp(function="m:f", inputs=(), outputs=large.outputs)
    assert prepared_us(host, target) == pytest.approx(3 + 10)
    assert prepared_us(msgspec.structs.replace(host, us=7.0), target) == 7


def dear_table(us: float) -> Lowering:
    """The rotation by a table, its launches for nothing, behind a table that takes `us`."""
    plain = next(low for low in lowerings(CPU) if low.name == "portable_rope_table")

    def prepare(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
        return tuple(msgspec.structs.replace(op, us=us) for op in plain.prepare(match, knobs))

    def work(match: Match, knobs: Knobs) -> Work:
        return Work(0, 0, 0)

    return replace(plain, name="dear_table", prepare=prepare, work=work)


def choices_of(artifact: Path) -> list[RegionChoice]:
    choices = ArtifactReader(artifact).structure("choices.json", Choices)
    return [each for some in choices.programs.values() for each in some]


@pytest.mark.parametrize(("us", "is_chosen"), [(1.0, True), (1e9, False)])
def test_a_compile_counts_it_and_says_so(
    compile_small: CompileSmall, tmp_path: Path, us: float, is_chosen: bool
) -> None:
    compile_small(tmp_path / "a", extra_lowerings=(dear_table(us),))
    found = [c for c in choices_of(tmp_path / "a") if c.lowering == "dear_table"]
    assert bool(found) == is_chosen
    for each in found:
        assert 0 < each.prepared_us == each.us == each.estimate_us <= 1
    if not is_chosen:
        prices = [x.us for c in choices_of(tmp_path / "a") for x in c.losers if x.us]
        assert max(prices) > 1e6, "it lost by its price"


def test_one_choice_for_all_programs_leaves_it_out(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    """A share hangs on the layers of a program."""
    compile_small(tmp_path / "a", extra_lowerings=(dear_table(1e9),), batch_invariant=True)
    assert all(c.prepared_us == 0 for c in choices_of(tmp_path / "a"))
