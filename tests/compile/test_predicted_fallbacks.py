"""Of hand-made choices: parts by their share, and reasons of those only that could not run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lostwax.backends.plan.fallbacks import PredictedStep, predicted_steps
from lostwax.ir.contract.artifact import ProgramRef
from lostwax.ir.contract.choice import Choices, Loser, RegionChoice
from lostwax.ir.contract.program import Bucket, Guard

REFUSED = Loser(lowering="own_wide", reason="dtype of x is f32, wants bf16")
DEARER = Loser(lowering="own_slow", reason="costs more", us=99.0)
OTHER_PORTABLE = Loser(lowering="portable_tiled", reason="no such tile", portable=True)
DEARER_PORTABLE = Loser(lowering="portable_slow", reason="costs more", us=50.0, portable=True)
ALL = (DEARER, REFUSED, OTHER_PORTABLE, DEARER_PORTABLE)


def _choice(
    block: str, op: str, us: float, *losers: Loser, portable: bool = True, lowering: str = ""
) -> RegionChoice:
    return RegionChoice(
        block=block,
        ops=(op,),
        region="d" * 64,
        lowering=lowering or f"{'portable' if portable else 'own'}_{op}",
        us=us,
        source="estimate",
        knobs={},
        losers=losers,
        portable=portable,
    )


def _step(choices: tuple[RegionChoice, ...], calls: tuple[str, ...]) -> PredictedStep:
    """What is said of one decode program whose blocks are called in this order."""
    ref = ProgramRef(
        file="programs/decode-t1.json",
        segment="decode",
        bucket=Bucket(1, 1, 4),
        guard=Guard("always"),
        arena_bytes=0,
    )
    found = Choices(programs={"decode-t1": choices}, storage={}, storage_losses={})
    reader: Any = SimpleNamespace(
        manifest=SimpleNamespace(programs=(ref,)),
        structure=lambda name, kind: found,  # pyright: ignore
        program=lambda file: SimpleNamespace(calls=[SimpleNamespace(block=b) for b in calls]),  # pyright: ignore
    )
    (step,) = predicted_steps(reader)
    return step


def test_parts_come_by_their_share_of_the_step_largest_first() -> None:
    """Neither by name, nor by the price of one layer, nor in the order of the program."""
    choices = (
        _choice("dense", "b", 30.0),
        _choice("moe", "c", 9.0),
        _choice("moe", "a", 20.0),
        _choice("moe", "own", 1.0, portable=False),
        _choice("head", "d", 10.0),
    )
    step = _step(choices, ("dense", *["moe"] * 8, "head"))
    assert step.us == 30 + 8 * (9 + 20 + 1) + 10 == 280
    assert [(f.ops, f.lowering) for f in step.fallbacks] == [
        (("a",), "portable_a"),
        (("c",), "portable_c"),
        (("b",), "portable_b"),
        (("d",), "portable_d"),
    ]
    assert [f.share * 280 for f in step.fallbacks] == pytest.approx([160, 72, 30, 10])
    assert step.share == pytest.approx(272 / 280)
    assert [line.split()[0] for line in step.lines()] == ["decode-t1:", "57%", "26%", "11%", "4%"]


def test_one_part_is_the_sum_of_its_places() -> None:
    choices = (
        _choice("dense", "a", 3.0, REFUSED),
        _choice("moe", "b", 8.0),
        _choice("moe", "a", 5.0, Loser(lowering="own_moe", reason="rows is 8, wants 1")),
        _choice("moe", "a", 1.0, lowering="portable_other"),
    )
    step = _step(choices, ("dense", "moe"))
    assert [(f.lowering, round(f.share * 17)) for f in step.fallbacks] == [
        ("portable_a", 8),
        ("portable_b", 8),
        ("portable_other", 1),
    ]
    assert step.fallbacks[0].refusals == (
        ("own_wide", REFUSED.reason),
        ("own_moe", "rows is 8, wants 1"),
    )


def test_only_what_of_the_targets_own_could_not_run_is_a_refusal() -> None:
    """A loser with a price could have run and cost more; another portable one is no remedy."""
    step = _step((_choice("head", "a", 1.0, *ALL),), ("head",))
    (part,) = step.fallbacks
    assert part.refusals == (("own_wide", REFUSED.reason),)
    assert list(step.lines()) == [
        "decode-t1: predicted 0.00 ms, 100% of it by portable lowerings",
        f"  100% a by portable_a; own_wide: {REFUSED.reason}",
    ]
    for loser in (DEARER, OTHER_PORTABLE, DEARER_PORTABLE):
        (part,) = _step((_choice("head", "a", 1.0, loser),), ("head",)).fallbacks
        assert part.refusals == (), loser.lowering


def test_the_targets_own_choices_are_no_fallbacks_whatever_lost() -> None:
    step = _step((_choice("head", "a", 4.0, *ALL, portable=False),), ("head",))
    assert (step.us, step.share, step.fallbacks) == (4.0, 0, ())
    assert list(step.lines()) == []
