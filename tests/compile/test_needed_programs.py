"""Programs for contexts that are short together stand only where they do something else."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from native_kernels import torch_alone
from small_fixtures import CompileSmall

from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.plan.sizes import CHOSEN, MIDDLE, SHORT, bounds_contexts
from lostwax.backends.portable.lowerings import lowerings
from lostwax.backends.predicates import Predicate
from lostwax.backends.registry import find_target
from lostwax.ir.contract.artifact import Manifest, ProgramRef

ONLY_SHORT = Predicate(lambda m: None if bounds_contexts(m.guard) else "only short contexts")
FREE, DEAR = Work(1, 1), Work(1e12, 1e12)
HEADS, MOST = 4, 50
"""Of the small model; positions for a head, together more than are selected."""
SIZES_A_ROW = 3
"""Of two requests of at most 32 positions, 3 positions a row bound those of a bucket of 16 rows."""


@pytest.fixture(scope="module", autouse=True)
def of_torch() -> Generator[None]:
    """Of torch's operators, whose choices differ between programs."""
    with torch_alone():
        yield


def asking(name: str, work: Work, when: Predicate | None = None, **changes: object) -> Lowering:
    """The portable embedding, asking for programs of short contexts."""
    own = next(x for x in lowerings(find_target("cpu")[1]) if x.name == "portable_embed")
    when = own.when & when if when else own.when

    def does(match: Match, knobs: Knobs) -> Work:
        return work

    return replace(
        own,
        name=name,
        when=when,
        work=does,
        contexts_a_row=SIZES_A_ROW,
        **changes,  # pyright: ignore[reportArgumentType]
    )


def selecting(name: str, work: Work, when: Predicate | None = None) -> Lowering:
    """The same, asking for programs of contexts of which some positions are not selected."""

    def contexts(rows: int, heads: int) -> int:
        return MOST * heads

    return replace(asking(name, work, when), contexts_a_row=0, selecting_contexts=contexts)


def guards(programs: Iterable[ProgramRef]) -> list[tuple[str, str, str]]:
    return [(p.segment, p.guard.name, str(p.bucket)) for p in programs]


def short(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [p for p in guards(manifest.programs) if p[1] == SHORT]


def test_a_program_that_chose_otherwise_is_kept(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    plain = compile_small(tmp_path / "plain")
    asked = asking("short_embed", FREE, ONLY_SHORT)
    kept = compile_small(tmp_path / "kept", extra_lowerings=(asked,))
    assert short(kept)
    assert [p for p in guards(kept.programs) if p[1] != SHORT] == guards(plain.programs)


@pytest.mark.slow
def test_a_program_that_chose_like_the_one_behind_it_is_not_kept(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    """Whether what asked for it was too dear, or is cheapest for all contexts."""
    plain = compile_small(tmp_path / "plain")
    for asked in (asking("dear", DEAR, ONLY_SHORT), asking("everywhere", FREE)):
        made = compile_small(tmp_path / asked.name, extra_lowerings=(asked,))
        assert guards(made.programs) == guards(plain.programs)


def test_another_setting_of_a_knob_is_another_choice(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    """Where the budget leaves short contexts another setting than the others."""

    def need(match: Match, knobs: Knobs) -> int:
        return 1 << 30 if bounds_contexts(match.guard) and knobs["wide"] else 0

    asked = asking("knob", FREE, knobs=(Knob("wide", (1, 0)),), allocates=need)
    made = compile_small(tmp_path / "a", extra_lowerings=(asked,), budget_bytes=1 << 29)
    assert short(made)


@pytest.mark.slow
def test_longer_contexts_have_programs_only_where_these_choose_otherwise(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    """Of extend steps alone, behind those of all positions and before those of any."""
    plain = compile_small(tmp_path / "plain")
    dear = compile_small(tmp_path / "dear", extra_lowerings=(selecting("dear", DEAR, ONLY_SHORT),))
    assert guards(dear.programs) == guards(plain.programs)
    asked = selecting("middle_embed", FREE, ONLY_SHORT)
    kept = compile_small(tmp_path / "kept", extra_lowerings=(asked,))
    made = [i for i, p in enumerate(kept.programs) if p.guard.name == MIDDLE]
    assert made
    for i in made:
        own, behind = kept.programs[i], kept.programs[i + 1]
        assert (own.segment, str(own.guard)) == ("extend", f"total_kv <= {MOST * HEADS}")
        assert (behind.bucket, behind.guard.name) == (own.bucket, CHOSEN)
    assert [p for p in guards(kept.programs) if p[1] != MIDDLE] == guards(plain.programs)


def test_the_heads_are_those_of_one_rank(compile_small: CompileSmall, tmp_path: Path) -> None:
    asked = selecting("middle_embed", FREE, ONLY_SHORT)
    made = compile_small(tmp_path / "half", tp=2, extra_lowerings=(asked,))
    bounds = {str(p.guard) for p in made.programs if p.guard.name == MIDDLE}
    assert bounds == {f"total_kv <= {MOST * HEADS // 2}"}
