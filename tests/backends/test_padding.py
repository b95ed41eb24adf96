"""What rows without a token hold reaches no real row and no expert: faults die in the kit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from types import ModuleType

import numpy as np
import pytest
import torch
from model_formats import FORMATS
from native_kernels import build_native, native_driver

from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.portable.kernels import attention, experts, fp8, linear, route, selection
from lostwax.backends.portable.kernels.paging import CachedRows, selected_rows
from lostwax.backends.proof.check import NotConformant
from lostwax.backends.proof.inputs import REAL_FIELDS, region_values
from lostwax.backends.proof.kit import (
    VARIANTS,
    Environment,
    Variant,
    candidates,
    cases,
    certify_all,
    contexts,
)
from lostwax.backends.proof.poison import poisoned, real_rows
from lostwax.backends.proof.step_cases import edge_buckets, step_case
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.program import HEADS
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import Scaled
from lostwax.ir.types import CacheType, TensorType

PAGE = 8
EXTEND = Variant("extend", every=False)
Kernel = Callable[..., None]


@cache
def _model(formats: str):
    config, chosen = FORMATS[formats]
    captured = capture(parse_config(config), page_tokens=PAGE)
    return run(captured.module, (AssignFormatsPass(**chosen),)), captured.facts


def _certify(name: str, variant: Variant, formats: str = "f32") -> None:
    """The lowering at every site of one variant. Raises NotConformant."""
    module, facts = _model(formats)
    environment = Environment(CPU, native_driver, build_native, "executed", {})
    chosen = [low for low in lowerings(CPU) if low.name == name]
    found = list(certify_all(module, facts, chosen, environment, variants=[variant]))
    assert any(outcome.certificate for outcome in found), f"{name} has no place here"


def _behind(kernel: Kernel, change: Callable[..., None]) -> Kernel:
    """The kernel, then a change of what it was given."""

    @wraps(kernel)
    def spoilt(*tensors: torch.Tensor, **consts: object) -> None:
        kernel(*tensors, **consts)
        change(*tensors)

    return spoilt


def _adds_all_rows_times_zero(x: torch.Tensor, *others: torch.Tensor) -> None:
    others[-1].add_(0 * x.float().sum())


def _chooses_an_expert(*tensors: torch.Tensor) -> None:
    _logits, _bias, positions, ids, _weights = tensors
    ids[positions < 0] = 0


def _chooses_beyond_the_table(logits: torch.Tensor, out: torch.Tensor) -> None:
    out[logits.isnan().all(-1)] = logits.shape[1]


def _amax_of_all_rows(x: torch.Tensor, block: int) -> torch.Tensor:
    parts = [x[..., i : i + block].abs().amax(-1) for i in range(0, x.shape[-1], block)]
    each = torch.stack(parts, -1)
    return each.amax(0, keepdim=True).expand(each.shape).clone()


def _hides_no_column(cache: CachedRows, page_table: torch.Tensor) -> torch.Tensor:
    """Columns for `_expanded`: none lies behind a request's last row."""
    return torch.full((page_table.shape[1] * cache.page_tokens,), -1)


def _reads_trash_for_none(
    cache: CachedRows,
    chosen: torch.Tensor,
    requests: torch.Tensor,
    page_table: torch.Tensor,
) -> torch.Tensor:
    """What is not selected reads slot 0."""
    rows = selected_rows(cache, chosen, requests, page_table)
    slot = cache.at(torch.zeros(1, dtype=torch.int64))
    return torch.where((chosen < 0)[..., None], slot, rows)


Fault = tuple[ModuleType, str, Callable[..., object]]

FAULTS: dict[str, tuple[str, Variant, str, Fault]] = {
    "a product adds all rows times zero": (
        "portable_linear",
        EXTEND,
        "f32",
        (linear, "linear", _behind(linear.linear, _adds_all_rows_times_zero)),
    ),
    "experts weigh other rows by zero": (
        "portable_experts_gather",
        EXTEND,
        "f32",
        (experts, "experts_gather", _behind(experts.experts_gather, _adds_all_rows_times_zero)),
    ),
    "rows share a scale": (
        "portable_quantise",
        EXTEND,
        "fnuz",
        (fp8, "block_amax", _amax_of_all_rows),
    ),
    "hidden keys are multiplied": (
        "portable_attend_expanded",
        EXTEND,
        "f32",
        (attention, "_columns", _hides_no_column),
    ),
    "what is not selected is read of the trash page": (
        "portable_attend_absorbed",
        EXTEND,
        "f32",
        (attention, "selected_rows", _reads_trash_for_none),
    ),
    "a row without a token reaches an expert": (
        "portable_route",
        EXTEND,
        "f32",
        (route, "route", _behind(route.route, _chooses_an_expert)),
    ),
    "a row without a token selects beyond the page table": (
        "portable_topk",
        EXTEND,
        "f32",
        (selection, "topk", _behind(selection.topk, _chooses_beyond_the_table)),
    ),
}
"""By fault: lowering, variant, formats, and what is planted where."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lowering_that_lets_padding_into_a_real_row_dies(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, variant, formats, (module, attribute, planted) = FAULTS[fault]
    _certify(name, variant, formats)
    monkeypatch.setattr(module, attribute, planted)
    with pytest.raises(NotConformant):
        _certify(name, variant, formats)


def test_every_case_of_an_odd_seed_has_padding_where_there_is_room() -> None:
    for segment in ("extend", "decode", "draft", "pick"):
        for bucket in edge_buckets(segment):
            for seed in (1, 3, 5):
                case = step_case(bucket, segment, seed, page_tokens=PAGE, vocab_size=50)
                count, rows = int(case.inputs["num_rows"][0]), max(bucket.tokens, bucket.rows)
                assert count == rows == 1 or count < rows
                rows_are = "logit_rows" if segment in HEADS else "positions"
                assert (case.inputs[rows_are] >= 0).sum() == count


def _nan_rows(value: np.ndarray) -> np.ndarray:
    wide = value.astype(np.float64).reshape(value.shape[0], -1)
    return np.asarray(np.isnan(wide).all(axis=1))


@pytest.mark.parametrize(
    "formats", ["f32", "bf16", "fp8", pytest.param("fnuz", marks=pytest.mark.slow), "caches"]
)
def test_what_is_undefined_is_nan_in_every_operand(formats: str) -> None:
    module, facts = _model(formats)
    num_rows = num_caches = 0
    for variant in VARIANTS:
        for context in contexts(module, facts, CPU, variant):
            (case,) = cases(context, facts, [1])
            for candidate in candidates(context, lowerings(CPU)):
                match = candidate.region
                found = poisoned(match, case, region_values(match, case))
                for value, bound in found.items():
                    if isinstance(value.type, CacheType):
                        pages = bound.data if isinstance(bound, CacheBytes) else bound
                        assert not isinstance(pages, Scaled)
                        trash = pages[0]
                        nan = (trash == 0xFF) if pages.dtype == np.uint8 else trash != trash
                        assert nan.all()
                        num_caches += 1
                        continue
                    assert isinstance(value.type, TensorType)
                    real = real_rows(value.type, case)
                    is_step = value.name_hint in REAL_FIELDS
                    if real is None or value.type.dtype_name.startswith("i") or is_step:
                        continue
                    parts = [bound.values, bound.scales] if isinstance(bound, Scaled) else [bound]
                    for part in parts:
                        assert isinstance(part, np.ndarray)
                        assert _nan_rows(part)[real:].all(), (candidate.name, value.name_hint)
                        num_rows += part[real:].shape[0]
    assert num_rows
    assert num_caches
