"""The host functions behind `sample.nucleus`, at the edges that seeded cases seldom meet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lostwax.backends.portable.kernels import sample as kernels
from lostwax.ir.reference import sample

Nucleus = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None
]


@pytest.fixture(params=[kernels.nucleus, kernels.nucleus_where_wanted], ids=lambda f: f.__name__)
def nucleus(request: pytest.FixtureRequest) -> Nucleus:
    return request.param


def ids(
    nucleus: Nucleus,
    logits: list[float],
    temperature: float,
    top_p: float,
    top_k: int = 0,
    min_p: float = 0.0,
) -> list[int]:
    """What stays of one row, between a greedy row and one of all ids, which pass as they are."""
    rows = torch.tensor([logits] * 3)
    out = torch.full_like(rows, torch.nan)
    heat, count = torch.tensor([0.0, temperature, 1.0]), torch.tensor([1, top_k, 0]).int()
    shares = torch.tensor([0.1, top_p, 1.0]), torch.tensor([0.5, min_p, 0.0])
    nucleus(rows, heat, count, *shares, out)
    assert torch.equal(out[[0, 2]], rows[[0, 2]])
    inside = out[1] > -torch.inf
    assert torch.equal(out[1], torch.where(inside, rows[1], -torch.inf))
    return inside.nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("logits", "temperature", "top_p", "want"),
    [
        ([0.0, 1.0, 1.0, 1.0], 1.0, 0.5, [1, 2]),  # of equals the first
        ([2.0, 2.0, 2.0, 2.0], 1.0, 0.5, [0, 1]),  # half the mass is before id 2: it stays out
        ([2.0, 2.0, 2.0, 2.0], 1.0, 0.51, [0, 1, 2]),
        ([0.0, 3.0, 1.0, 2.0], 1.0, 1e-6, [1]),
        ([0.0, 3.0, 1.0, 2.0], 2.0, 1e-30, [1]),
        ([0.0, 3.0, 3.0, 2.0], 1e-6, 0.999, [1, 2]),  # exp(3e6) is no number
        ([0.0, 3.0, 1.0, 2.0], 1.0, 1.0, [0, 1, 2, 3]),
        ([0.0, 3.0, 1.0, 2.0], 0.0, 0.5, [0, 1, 2, 3]),
    ],
)
def test_a_nucleus_at_its_edges(
    nucleus: Nucleus, logits: list[float], temperature: float, top_p: float, want: list[int]
) -> None:
    assert ids(nucleus, logits, temperature, top_p) == want


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p", "want"),
    [
        (2, 1.0, 0.0, [1, 2]),  # of equals the first
        (9, 1.0, 0.0, [0, 1, 2, 3, 4]),
        (3, 0.5, 0.0, [1, 2]),  # the mass of what top_k leaves is the whole
        (4, 0.5, 0.0, [1, 2]),
        (0, 0.5, 0.0, [1, 2, 3]),
        (0, 1.0, 0.99, [1, 2, 3, 4]),
        (3, 1.0, 0.99, [1, 2, 3]),
        (0, 0.3, 1.0, [1, 2]),
    ],
)
def test_what_top_k_and_min_p_leave(
    nucleus: Nucleus, top_k: int, top_p: float, min_p: float, want: list[int]
) -> None:
    assert ids(nucleus, [1.9, 2.0, 2.0, 2.0, 2.0], 1.0, top_p, top_k, min_p) == want


@pytest.mark.parametrize("bias", [kernels.bias, kernels.bias_where_wanted])
def test_rows_without_a_bias_pass_bit_for_bit(bias: Callable[..., None]) -> None:
    logits = torch.tensor([[-0.0, 1.5, torch.nan]] * 3)
    biases = torch.tensor([[0.0, 1.0, 0.0], [1e-9, -torch.inf, 2.0]])
    out = torch.empty_like(logits)
    bias(logits, biases, torch.tensor([-1, 1, 0], dtype=torch.int32), out)
    assert torch.equal(out[0].view(torch.int32), logits[0].view(torch.int32))
    assert out[1, :2].tolist() == [torch.tensor(1e-9).item(), -torch.inf]
    assert out[2, :2].tolist() == [0.0, 2.5]


@pytest.mark.parametrize("penalise", [kernels.penalise, kernels.penalise_where_wanted])
def test_rows_without_penalties_pass_bit_for_bit(penalise: Callable[..., None]) -> None:
    logits = torch.tensor([[-0.0, 1.5, torch.nan, 4.0]] * 2)
    counts = torch.tensor([[9, 9, 9, 9], [1, 4, 0, 0]], dtype=torch.int32)
    rows, recent = torch.tensor([-1, 1]).int(), torch.tensor([[1, 1, 1], [-1, 3, -1]]).int()
    told = torch.full((2,), 2.0), torch.full((2,), 0.25), torch.full((2,), 0.5)
    out = torch.empty_like(logits)
    penalise(logits, counts, rows, recent, *told, out)
    assert torch.equal(out[0].view(torch.int32), logits[0].view(torch.int32))
    assert out[1, [0, 1, 3]].tolist() == [0.0, 0.75 - 2 * 0.25 - 0.5, 2.0 - 0.25 - 0.5]


def test_a_whole_vocabulary_has_the_references_nucleus(nucleus: Nucleus) -> None:
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((4, 129_280))).astype(np.float32)
    heat = np.array([0.5, 1.0, 1.0, 2.0], np.float32)
    count = np.array([0, 50, 0, 2000], np.int32)
    share = np.array([0.95, 0.5, 0.999, 0.95], np.float32)
    least = np.array([0.0, 0.0, 0.001, 0.01], np.float32)
    out = torch.empty(logits.shape)
    asked = heat, count, share, least
    given = [torch.from_numpy(each) for each in (logits, *asked)]
    nucleus(given[0], given[1], given[2], given[3], given[4], out)
    want = sample.nucleus(logits, *asked)
    border = sample.nucleus_border(logits, *asked)
    assert border.sum() < 10 * len(logits)  # so few ids may fall either way
    np.testing.assert_array_equal(out.numpy()[~border], want[~border])


def test_a_row_of_nan_stays_one_that_the_engine_notices(nucleus: Nucleus) -> None:
    logits = torch.tensor([[0.0, torch.nan, 1.0]])
    out = torch.empty_like(logits)
    nucleus(
        logits, torch.ones(1), torch.zeros(1).int(), torch.tensor([0.5]), torch.zeros(1), out
    )  # fmt: skip
    found, target = torch.zeros(1, dtype=torch.int32), torch.zeros(1)
    kernels.pick(out, torch.ones(1), torch.zeros(1).int(), torch.zeros(1).int(), found, target)
    kernels.logprob(logits, found, target)
    assert target.isnan().all()
