"""What a probe draws is bounded before anything is drawn: an artifact may be a stranger's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.proof import make_probes
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.check_probes import MAX_DRAWN_BITS, check_probes
from lostwax.ir.contract.check_program import symbols_of
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.probe import DrawnBits, Probes


def _with_more_rows(probes: Probes, rows: int) -> Probes:
    """The same, whose arrays of bits have this many rows more: no launch looks at those."""

    def grown(data: Any) -> Any:
        if not isinstance(data, DrawnBits):
            return data
        return msgspec.structs.replace(data, shape=(data.shape[0] + rows, *data.shape[1:]))

    replace = msgspec.structs.replace
    return replace(
        probes,
        probes=tuple(
            replace(p, given=tuple(replace(g, data=grown(g.data)) for g in p.given))
            for p in probes.probes
        ),
    )


def test_a_probe_draws_no_more_bits_than_masks_have(small_artifact: Compiled) -> None:
    reader = ArtifactReader(small_artifact.artifact)
    probes, symbols = reader.probes(), symbols_of(reader.manifest)
    check_probes(_with_more_rows(probes, 9), symbols, reader.manifest)
    (words,) = {
        each.data.shape[1]
        for probe in probes.probes
        for each in probe.given
        if isinstance(each.data, DrawnBits)
    }
    with pytest.raises(Inconsistent, match=f"draws bits of .* numbers, {MAX_DRAWN_BITS} at most"):
        check_probes(_with_more_rows(probes, MAX_DRAWN_BITS // words), symbols, reader.manifest)


def test_a_compile_leaves_out_a_probe_of_more_masks_and_says_so(
    compile_small: CompileSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would write an artifact that nobody can read."""
    monkeypatch.setattr(make_probes, "MAX_DRAWN_BITS", 3)
    compile_small(tmp_path / "art")
    probes = ArtifactReader(tmp_path / "art").probes().probes
    masking = [probe for probe in probes if "sample.mask" in probe.ops]
    assert masking
    for probe in masking:
        assert probe.refusal == "its masks hold 4 numbers, and a probe 3"
        assert not probe.launches
