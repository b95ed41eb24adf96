"""The trained tiny model compiled for GPUs, with and without drafts: every choice has a probe.

Steps of several rows a request, whole regions of products, reshapes and appends: what the small
models of other tests are too narrow to be given. Nothing runs here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the extra `aot` is not installed")

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.formats import Formats
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.ir.contract.choice import Choices

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[2] / "models" / "tiny" / "weights"
FORMATS = {
    "bf16": Formats(),
    "official": Formats(kv="fp8_656", indexer="fp8_ue8m0", activations="fp8_ue8m0"),
}


@pytest.mark.parametrize("formats", FORMATS)
def test_every_choice_for_a_gpu_has_a_probe(formats: str, tmp_path: Path) -> None:
    captured = capture(open_checkpoint(TINY))
    options = CompileOptions(formats=FORMATS[formats], sizes=Sizes(max_reqs=16, max_drafts=3))
    out = tmp_path / "art"
    compile_module(captured.module, captured.facts, captured.weights, "cuda-sm90a", out, options)
    reader = ArtifactReader(out)
    probes = reader.probes().probes
    assert [p.refusal for p in probes if p.refusal] == []
    choices = reader.structure("choices.json", Choices)
    assert {c.probe for each in choices.programs.values() for c in each} == {p.id for p in probes}
