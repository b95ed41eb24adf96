"""An artifact whose programs do not serve what its limits promise is refused when it is opened."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from small_fixtures import Compiled

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.artifact import Manifest, ProgramRef
from lostwax.ir.contract.check_manifest import check_manifest
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.weight_types import check_form
from lostwax.ir.contract.weights import Pad, StoredWeight, WeightPart

Keep = Callable[[ProgramRef], bool]


@pytest.fixture
def manifest(small_artifact: Compiled) -> Manifest:
    found = ArtifactReader(small_artifact.artifact).manifest
    check_manifest(found)
    return found


def _keeping(manifest: Manifest, keep: Keep) -> Manifest:
    programs = tuple(ref for ref in manifest.programs if keep(ref))
    assert 0 < len(programs) < len(manifest.programs)
    largest = max(ref.arena_bytes for ref in programs)
    return msgspec.structs.replace(manifest, programs=programs, arena_bytes=largest)


MISSING: list[tuple[Keep, str]] = [
    (lambda r: r.segment != "score", "no head 'score'"),
    (lambda r: r.segment != "sample", "no head 'sample'"),
    (lambda r: r.segment != "decode" or r.bucket.reqs < 2, "no decode program takes"),
    (lambda r: r.segment != "extend" or r.bucket.tokens < 64, "no extend program takes"),
    (lambda r: r.guard.name != "chosen", "no (extend|decode) program takes"),
]


@pytest.mark.parametrize(("keep", "message"), MISSING)
def test_programs_that_do_not_take_every_step_are_refused(
    manifest: Manifest, keep: Keep, message: str
) -> None:
    with pytest.raises(Inconsistent, match=message):
        check_manifest(_keeping(manifest, keep))


def test_limits_beyond_the_programs_are_refused(manifest: Manifest) -> None:
    limits = msgspec.structs.replace(manifest.limits, max_reqs=8)
    with pytest.raises(Inconsistent, match="program takes the largest step"):
        check_manifest(msgspec.structs.replace(manifest, limits=limits))


@pytest.mark.parametrize("state_bytes", [0, 8, 1 << 49])
def test_a_hidden_state_of_another_size_is_refused(manifest: Manifest, state_bytes: int) -> None:
    with pytest.raises(Inconsistent, match="state_bytes"):
        check_manifest(msgspec.structs.replace(manifest, state_bytes=state_bytes))


def test_what_a_weight_takes_on_its_way_is_bounded() -> None:
    part = WeightPart(name="w", dtype="f32", shape=(64, 64))
    stored = StoredWeight(
        name="w", dtype="f32", shape=(65536, 65536), parts=(part,), steps=(Pad((65536, 65536)),)
    )
    check_form(stored, 1)  # its size is the plan's to say
    with pytest.raises(msgspec.ValidationError, match="length <= 16"):
        msgspec.convert(
            msgspec.to_builtins(msgspec.structs.replace(stored, steps=(Pad((2, 2)),) * 17)),
            StoredWeight,
        )
