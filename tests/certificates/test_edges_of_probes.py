"""What only shows at an edge is named all the same: far positions, a second request, an overrun."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from native_kernels import driver_of, torch_alone
from small import SMALL, options

from lostwax.backends.compile import compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.portable.kernels import elementwise, rope, sample, step
from lostwax.backends.proof.certify import certify_artifact
from lostwax.backends.proof.chosen_candidates import count_sites
from lostwax.backends.runtime import boot_check
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.draw import LEAST_ROWS, array_of
from lostwax.backends.runtime.run_probe import WrongKernel, run_probe
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.probe import Drawn, Kept, Probe

CONTEXT = 163_840


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with V3.2's context, for up to three requests."""
    captured = capture(parse_config(SMALL | {"max_position_embeddings": CONTEXT}))
    out = tmp_path_factory.mktemp("edges") / "art"
    sizes = Sizes(max_context=512, max_tokens=16, max_reqs=3)
    with torch_alone():
        compile_module(captured.module, captured.facts, {}, "cpu", out, options(sizes=sizes))
    return out


def _probes(artifact: Path) -> tuple[Probe, ...]:
    return ArtifactReader(artifact).probes().probes


def _said(artifact: Path, op: str) -> Iterator[str]:
    """What is said of each probe of an op, empty where it is right."""
    driver = driver_of(artifact)
    for probe in _probes(artifact):
        if op in probe.ops:
            try:
                run_probe(probe, driver)
                yield ""
            except WrongKernel as error:
                yield str(error)


def _wrong_of(artifact: Path) -> list[tuple[str, ...]]:
    """The ops of what `certify` finds wrong; it goes on to the end."""
    found = list(certify_artifact(artifact))
    assert len(found) > 20
    return [c.ops for c in found if c.error]


def test_without_a_fault_all_is_right(artifact: Path) -> None:
    assert set(_said(artifact, "core.rope")) == set(_said(artifact, "mla.attend")) == {""}
    assert _wrong_of(artifact) == []


def test_angles_in_f32_are_wrong_at_the_end_of_the_context(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = rope._angles  # pyright: ignore[reportPrivateUsage]  (the fault is put there)

    def narrow(positions: torch.Tensor, *settings: float) -> torch.Tensor:
        one = exact(torch.ones_like(positions), *settings).float()  # pyright: ignore
        return one * positions.float()[:, None]

    monkeypatch.setattr(rope, "_angles", narrow)
    assert all("core.rope is wrong on this device" in said for said in _said(artifact, "core.rope"))
    assert _wrong_of(artifact), "and `certify` notices, too"


def test_a_second_request_that_reads_the_pages_of_the_first_is_wrong(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @functools.wraps(step.row_requests)
    def first_alone(q_starts: torch.Tensor, requests: torch.Tensor) -> None:
        requests.zero_()

    monkeypatch.setattr(step, "row_requests", first_alone)
    driver = driver_of(artifact)
    named: set[str] = set()
    for probe in _probes(artifact):
        reads = any("row_requests" in getattr(x, "function", "") for x in probe.launches)
        if reads and "-b1-" not in probe.program:  # of one request nothing can be mistaken
            with pytest.raises(WrongKernel) as error:
                run_probe(probe, driver)
            named.add(probe.lowering)
            assert probe.lowering in str(error.value)
    assert named, "no lowering of this artifact asks for the requests of rows"


def _without_mask_0(
    logits: torch.Tensor, masks: torch.Tensor, mask_rows: torch.Tensor, out: torch.Tensor
) -> None:
    sample.mask(logits, masks, torch.where(mask_rows > 0, mask_rows, -1), out)


def _mask_of_another_row(
    logits: torch.Tensor, masks: torch.Tensor, mask_rows: torch.Tensor, out: torch.Tensor
) -> None:
    wanted = torch.nonzero(mask_rows >= 0)[:, 0]
    out.copy_(logits)
    allowed = torch.empty_like(logits[wanted])
    sample.mask(logits[wanted], masks, mask_rows[: len(wanted)], allowed)
    out[wanted] = allowed


def _without_recent(
    logits: torch.Tensor, counts: torch.Tensor, count_rows: torch.Tensor, recent: torch.Tensor,
    *asked: torch.Tensor,
) -> None:  # fmt: skip
    factor, often, once, out = asked
    none = torch.full_like(recent, -1)
    sample.penalise(logits, counts, count_rows, none, factor, often, once, out)


def _counts_of_another_row(
    logits: torch.Tensor, counts: torch.Tensor, count_rows: torch.Tensor, *asked: torch.Tensor
) -> None:
    recent, factor, often, once, out = asked
    named = torch.where(count_rows >= 0, (count_rows + 1) % len(counts), -1)
    sample.penalise(logits, counts, named, recent, factor, often, once, out)


def _without_bias_0(
    logits: torch.Tensor, biases: torch.Tensor, bias_rows: torch.Tensor, out: torch.Tensor
) -> None:
    sample.bias(logits, biases, torch.where(bias_rows > 0, bias_rows, -1), out)


def _bias_of_another_row(
    logits: torch.Tensor, biases: torch.Tensor, bias_rows: torch.Tensor, out: torch.Tensor
) -> None:
    sample.bias(logits, biases, bias_rows.roll(1), out)


def _nucleus_of_another_row(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    out: torch.Tensor,
) -> None:
    wanted = torch.nonzero((temperature > 0) & ((top_k > 0) | (top_p < 1) | (min_p > 0)))[:, 0]
    out.copy_(logits)
    inside = torch.empty_like(logits[wanted])
    count = len(wanted)
    asked = temperature[:count], top_k[:count], top_p[:count], min_p[:count]
    sample.nucleus(logits[wanted], *asked, inside)
    out[wanted] = inside


def _no_nucleus(logits: torch.Tensor, *given: torch.Tensor) -> None:
    given[-1].copy_(logits)


def _without_top_k(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, *given: torch.Tensor
) -> None:
    top_p, min_p, out = given
    sample.nucleus(logits, temperature, torch.zeros_like(top_k), top_p, min_p, out)


def _without_min_p(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, *given: torch.Tensor
) -> None:
    top_p, min_p, out = given
    sample.nucleus(logits, temperature, top_k, top_p, torch.zeros_like(min_p), out)


@pytest.mark.parametrize(
    ("op", "kernel", "fault"),
    [
        ("sample.penalise", "penalise_where_wanted", _without_recent),
        ("sample.penalise", "penalise_where_wanted", _counts_of_another_row),
        ("sample.bias", "bias_where_wanted", _without_bias_0),
        ("sample.bias", "bias_where_wanted", _bias_of_another_row),
        ("sample.mask", "mask_where_wanted", _without_mask_0),
        ("sample.mask", "mask_where_wanted", _mask_of_another_row),
        ("sample.nucleus", "nucleus_where_wanted", _nucleus_of_another_row),
        ("sample.nucleus", "nucleus_where_wanted", _no_nucleus),
        ("sample.nucleus", "nucleus_where_wanted", _without_top_k),
        ("sample.nucleus", "nucleus_where_wanted", _without_min_p),
    ],
)
def test_a_row_that_is_sampled_as_another_is_wrong(
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    op: str,
    kernel: str,
    fault: Callable[..., None],
) -> None:
    assert set(_said(artifact, op)) == {""}
    monkeypatch.setattr(sample, kernel, functools.wraps(getattr(sample, kernel))(fault))
    said = list(_said(artifact, op))
    assert said
    assert all(f"{op} is wrong on this device" in each for each in said)


def test_every_probe_of_several_requests_holds_two(artifact: Path) -> None:
    seen = 0
    for probe in _probes(artifact):
        for given in (g for g in probe.given if g.name == "step.q_starts"):
            starts = array_of(given.data)
            if starts.size > 2:
                seen += 1
                assert np.unique(starts).size > 2, f"{probe.lowering}: {starts}"
    assert seen


def test_drawn_activations_hold_zeros_powers_of_two_and_ties(artifact: Path) -> None:
    drawn = [g.data for p in _probes(artifact) for g in p.given if isinstance(g.data, Drawn)]
    edged = [d for d in drawn if d.edges and d.shape[0] >= LEAST_ROWS]
    assert edged
    for data in edged:
        rows = array_of(data).astype(np.float64).reshape(data.shape[0], -1)
        assert not rows[1].any()
        assert np.array_equal(np.log2(np.abs(rows[2])) % 1, np.zeros(rows.shape[1]))
        assert set(np.abs(rows[3])) == {0.5}
        assert np.unique(np.abs(rows[0])).size > 2, "row 0 is none of them"
        plain = array_of(replace_edges(data)).astype(np.float64).reshape(rows.shape)
        assert np.array_equal(rows[0], plain[0]), "the others are as they were drawn"


def replace_edges(data: Drawn) -> Drawn | Kept:
    from msgspec.structs import replace as changed

    return changed(data, edges=False)


def _beyond_its_end(x: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(x)
    ctypes.memset(out.data_ptr() + out.nbytes, 7, 1)  # as a kernel would: torch knows the end


def _raising(x: torch.Tensor, out: torch.Tensor) -> None:
    raise RuntimeError("an illegal memory access was encountered")


def _of_other_arguments(x: torch.Tensor, out: torch.Tensor) -> None:
    raise TypeError("npu_swiglu() got an unexpected keyword argument 'dim'")


def _of_another_package(x: torch.Tensor, out: torch.Tensor) -> None:
    class VendorError(Exception):
        pass

    raise VendorError("call aclnn failed") from AttributeError("no attribute 'stream'")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_beyond_its_end, "was written beyond its end"),
        (_raising, "illegal memory access"),
        (_of_other_arguments, "TypeError: npu_swiglu() got an unexpected keyword argument 'dim'"),
        (_of_another_package, "call aclnn failed, from AttributeError: no attribute 'stream'"),
    ],
)
def test_certify_names_what_does_not_run_and_goes_on(
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[torch.Tensor, torch.Tensor], None],
    words: str,
) -> None:
    monkeypatch.setattr(elementwise, "zeros_like", functools.wraps(elementwise.zeros_like)(fault))
    found = list(certify_artifact(artifact))
    wrong = [c for c in found if c.error]
    assert [c.lowering for c in wrong] == ["portable_zeros_like"] * len(wrong) != []
    assert all("portable_zeros_like does not run: " in str(c.error) for c in wrong)
    assert all(words in str(c.error) for c in wrong)
    assert len(found) - len(wrong) > 20
    once = {(c.program.partition("-")[0], c.probe) for c in found}
    assert len(found) == count_sites(artifact) == len(once)


def test_evidence_ends_with_a_byte_of_any_code_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_kernels_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "kernel.py").write_text("SCALE = 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = boot_check.code_digest((package.name,))
    (package / "kernel.py").write_text("SCALE = 2.0\n")
    assert boot_check.code_digest((package.name,)) != before
    sys.modules.pop(package.name, None)


@pytest.mark.parametrize("left_out", boot_check.RUNS_PROBES)
def test_evidence_covers_what_reads_binds_and_compares(
    left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = boot_check.code_digest(())
    kept = tuple(p for p in boot_check.RUNS_PROBES if p != left_out)
    monkeypatch.setattr(boot_check, "RUNS_PROBES", kept)
    assert boot_check.code_digest(()) != whole
