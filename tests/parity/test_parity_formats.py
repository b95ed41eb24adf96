"""Artifacts with 8-bit caches, indexer and activations against the fp64 reference of their module.

In fp32 both round the same values at the same places: log-probabilities agree to 1e-6, whatever the
formats, but of a row whose last bit of fp32 falls on the other side of a rounding, or of what is
selected: which rows these are, if any, the processor's order of sums says. In bf16 there are more.
"""

from __future__ import annotations

import numpy as np
import pytest
from harness import Build, Models
from stored_model import differences

from lostwax.backends.formats import Formats

FORMATS = {
    "bf16": Formats(kv="bf16", indexer="bf16"),
    "paged": Formats(kv="fp8_656", indexer="fp8_ue8m0"),
    "row": Formats(kv="fp8_576", indexer="fp8_fp32", index_pages="index_row"),
    "powers": Formats(kv="fp8_656", kv_scale="ue8m0", indexer="f32"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "paged")) for name in FORMATS],
)
def test_formats_of_caches_and_indexer_mean_the_same_in_the_artifact(
    models: Models, name: str
) -> None:
    build = Build("plain", 3, "fp32", "f32", formats=FORMATS[name])
    off = differences(models, build, 140)
    assert np.quantile(off, 0.8) < 1e-4
    assert off.max() < 0.5


def test_quantised_activations_mean_the_same_in_the_artifact(models: Models) -> None:
    formats = Formats(activations="fp8_ue8m0")
    build = Build("plain", 3, "fp8", "bf16", formats=formats)
    dense = differences(models, build, 30)
    assert dense.max() < 0.03
    assert dense.mean() < 0.006


@pytest.mark.slow
def test_weights_encoded_anew_give_the_same_in_bits(models: Models) -> None:
    """e4m3fn to e4m3fnuz is exact, so nothing that is computed from the weights changes."""
    fn, fnuz = (
        differences(models, Build("odd", 4, "fp8", "bf16", formats=Formats(fp8=encoding)), 60)
        for encoding in ("f8E4M3FN", "f8E4M3FNUZ")
    )
    assert (fn == fnuz).all()
