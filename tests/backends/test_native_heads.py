"""The native kernels of heads beside the reference: rows that samplers are wrong about, long rows,
rows alone and beside others, any number of threads, both instruction sets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from native_kernels import native_driver, run_native
from sampled_rows import ROWS, Arrays, rows_of

from lostwax.backends.cpu import pool
from lostwax.backends.cpu.contract.sizes import PART
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.library import libraries
from lostwax.backends.cpu.target import CPU
from lostwax.backends.proof.plain_match import Value
from lostwax.ir.reference import sample

PENALTIES = "counts count_rows recent repetition frequency presence"
OPERANDS = {
    "penalise": PENALTIES,
    "bias": "biases bias_rows",
    "mask": "masks mask_rows",
    "adjust": f"{PENALTIES} biases bias_rows masks mask_rows",
    "nucleus": "temperature top_k top_p min_p",
    "pick": "temperature seeds counters",
    "logprob": "targets",
    "score": "targets",
}
"""By op, beside the logits."""
STATES = ("counts", "biases", "masks")
"""What has rows that are nobody's."""
LONG = 2 * PART + 37
"""Three parts."""
TOP = 20
EVERY = tuple(ROWS)
GROUPS = (EVERY[:9], EVERY[9:16], EVERY[16:])
"""As many as there are seeds."""


def _result(op: str, rows: int, vocab: int) -> dict[str, Value]:
    each = Value((rows,), "f32")
    match op:
        case "pick":
            return {"op.ids": Value((rows,), "i32"), "op.logprobs": each}
        case "logprob":
            return {"op.logprobs": each}
        case "score":
            top = (rows, min(TOP, vocab))
            return {
                "op.target_logprobs": each,
                "op.top_ids": Value(top, "i32"),
                "op.top_logprobs": Value(top, "f32"),
            }
        case _:
            return {"masked" if op == "adjust" else "op.out": Value((rows, vocab), "f32")}


def run(driver: CpuDriver, op: str, data: Arrays, real: int | None = None) -> Arrays:
    """One lowering's results by name."""
    given = {name: data[name] for name in ("logits", *OPERANDS[op].split())}
    results = _result(op, *data["logits"].shape)
    return run_native(driver, f"cpu_native_{op}", given, results, real)


@pytest.fixture(params=["least", "most"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CpuDriver:
    """The kernels for what the library asks for at least, or for all that is here."""
    if request.param == "least":
        least = set(libraries()[CPU.arch].features)
        monkeypatch.setattr(pool, "_processor_features", lambda: least)
    return native_driver()


@pytest.fixture(params=[1, 300, LONG])
def vocab(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(params=GROUPS, ids=lambda names: names[0])
def data(request: pytest.FixtureRequest, vocab: int) -> Arrays:
    """Rows that differ in all that they ask for."""
    found = rows_of(request.param, vocab)
    rows = np.arange(len(found["logits"]))
    found["count_rows"] = ((rows * 2) % 5 - 1).astype(np.int32)
    found["bias_rows"] = ((rows * 3 + 1) % 4 - 1).astype(np.int32)
    found["mask_rows"] = ((rows * 3) % 5 - 1).astype(np.int32)
    found["targets"] = np.where(rows % 3 == 1, -1, rows * 37 % vocab).astype(np.int32)
    return found


def _require_near(got: np.ndarray, want: np.ndarray) -> None:
    """Equal but for rounding to f32, NaN to NaN."""
    np.testing.assert_allclose(got, want.astype(np.float32), rtol=2e-6, atol=2e-6)


pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # rows hold NaN and infinities


def test_a_nucleus_is_the_references_and_nan_stays(native: CpuDriver, data: Arrays) -> None:
    found = run(native, "nucleus", data)["op.out"]
    logits, *asked = (data[name] for name in ("logits", *OPERANDS["nucleus"].split()))
    want, border = (f(logits, *asked) for f in (sample.nucleus, sample.nucleus_border))
    is_broken = np.isnan(logits).any(axis=1)
    np.testing.assert_array_equal(found[is_broken], logits[is_broken])
    is_open = border[~is_broken]
    kept = np.where(is_open, 0, found[~is_broken])
    np.testing.assert_array_equal(kept, np.where(is_open, 0, want[~is_broken]))


def test_an_id_is_the_references_and_so_is_its_logprob(native: CpuDriver, data: Arrays) -> None:
    found = run(native, "pick", data)
    ids, logprobs = sample.pick(*(data[n] for n in ("logits", *OPERANDS["pick"].split())))
    np.testing.assert_array_equal(found["op.ids"], ids)
    _require_near(found["op.logprobs"], logprobs)
    again = run(native, "logprob", data | {"targets": found["op.ids"]})["op.logprobs"]
    np.testing.assert_array_equal(again, found["op.logprobs"])


def test_targets_and_first_ids_are_the_references(native: CpuDriver, data: Arrays) -> None:
    found = run(native, "score", data)
    ids = found["op.top_ids"]
    target, want, logprobs = sample.score(data["logits"], data["targets"], n=ids.shape[1])
    np.testing.assert_array_equal(ids, want)
    _require_near(found["op.target_logprobs"], target)
    _require_near(found["op.top_logprobs"], logprobs)
    alone = run(native, "logprob", data)["op.logprobs"]
    np.testing.assert_array_equal(found["op.target_logprobs"], alone)


def test_adjusted_logits_are_the_references(native: CpuDriver, data: Arrays) -> None:
    """One after another, and all in one launch, with the same bits."""
    logits, together = data["logits"], run(native, "adjust", data)["masked"]
    for op in ("penalise", "bias", "mask"):
        found = run(native, op, data | {"logits": logits})["op.out"]
        want = getattr(sample, op)(logits, *(data[n] for n in OPERANDS[op].split()))
        _require_near(found, want)
        is_asked = data[{"penalise": "count_rows"}.get(op, f"{op}_rows")] >= 0
        assert is_asked.any()
        assert found[~is_asked].tobytes() == logits[~is_asked].tobytes()
        logits = found.astype(np.float32)
    assert together.tobytes() == logits.tobytes()


@pytest.mark.parametrize("op", OPERANDS)
def test_a_row_has_the_same_bits_alone_and_on_any_number_of_threads(op: str) -> None:
    driver, names = native_driver(), EVERY[:3] + EVERY[19:25]
    data = rows_of(names, LONG) | {"targets": np.arange(9, dtype=np.int32)}
    for state in ("count_rows", "bias_rows", "mask_rows"):
        data[state] = np.array([1, 0, 2, 0, 0, 1, -1, 2, 1], np.int32)
    many = run(driver, op, data)
    for threads in (2, 8):
        driver.use_threads(threads)
        for name, values in run(driver, op, data).items():
            assert values.tobytes() == many[name].tobytes()
    for row in range(9):
        one = {n: a if n in STATES else a[row : row + 1] for n, a in data.items()}
        for name, values in run(driver, op, one).items():
            assert values.tobytes() == many[name][row : row + 1].tobytes()


@pytest.mark.parametrize("op", OPERANDS)
def test_rows_behind_the_real_ones_are_left_alone(op: str) -> None:
    driver = native_driver()
    data = rows_of(EVERY[16:], 300) | {"targets": np.zeros(9, np.int32)}
    every, some = run(driver, op, data), run(driver, op, data, real=4)
    for name, values in some.items():
        assert values[:4].tobytes() == every[name][:4].tobytes()
        assert set(values[4:].tobytes()) == {0xFF}


def test_noise_picks_what_the_references_does() -> None:
    """Of equal logits the noise alone decides, and which ids are out of its reach."""
    count, vocab = 2000, 97
    rng = np.random.default_rng(3)
    heat = rng.choice([1e-30, 0.1, 1.0, 7.0, 1e30], count).astype(np.float32)
    logits = np.where(np.arange(count)[:, None] % 2, rng.standard_normal((count, vocab)), 0.25)
    data = {
        "logits": logits.astype(np.float32),
        "temperature": heat,
        "seeds": rng.integers(-(2**31), 2**31, count).astype(np.int32),
        "counters": np.arange(count, dtype=np.int32),
    }
    found = run(native_driver(), "pick", data)["op.ids"]
    np.testing.assert_array_equal(found, sample.pick(*data.values())[0])


def test_equals_of_different_parts_are_in_the_order_of_their_ids() -> None:
    driver = native_driver()
    data = rows_of(("one value",) * 4, LONG)
    data["temperature"] = np.array([0, 1, 1, 1], np.float32)
    data["top_k"] = np.array([0, PART, PART + 3, 2 * PART + 1], np.int32)
    data["top_p"] = np.array([1, 1, 0.5, 1], np.float32)
    data["targets"] = np.zeros(4, np.int32)
    assert run(driver, "pick", data)["op.ids"][0] == 0
    inside = run(driver, "nucleus", data)["op.out"] > -np.inf
    assert inside.sum(axis=1).tolist() == [LONG, PART, PART // 2 + 2, 2 * PART + 1]
    assert all(row[: row.sum()].all() for row in inside)
    first = run(driver, "score", data)["op.top_ids"]
    assert (first == np.arange(TOP)).all()


def test_a_whole_vocabulary_is_the_references() -> None:
    vocab, driver = 129_280, native_driver()
    data = rows_of(("plain", "few", "likely", "all three", "more than all"), vocab)
    data["targets"] = np.arange(5, dtype=np.int32)
    found = run(driver, "nucleus", data)["op.out"]
    asked = [data[name] for name in OPERANDS["nucleus"].split()]
    border = sample.nucleus_border(data["logits"], *asked)
    assert border.sum() < 50
    want = sample.nucleus(data["logits"], *asked)
    np.testing.assert_array_equal(found[~border], want[~border])
    data["logits"] = np.where(border, want, found).astype(np.float32)
    ids, _ = sample.pick(*(data[n] for n in ("logits", *OPERANDS["pick"].split())))
    np.testing.assert_array_equal(run(driver, "pick", data)["op.ids"], ids)
    top = run(driver, "score", data)["op.top_ids"]
    np.testing.assert_array_equal(top, sample.score(data["logits"], data["targets"], n=TOP)[1])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_masses_end_where_the_share_does(scale: float) -> None:
    """A larger share keeps no fewer ids, and each keeps the fewest that reach it."""
    shares = np.linspace(0.05, 0.999, 24, dtype=np.float32)
    logits = scale * np.random.default_rng(5).standard_normal((1, 3000))
    data = {
        "logits": np.repeat(logits.astype(np.float32), 24, axis=0),
        "temperature": np.ones(24, np.float32),
        "top_k": np.zeros(24, np.int32),
        "top_p": shares,
        "min_p": np.zeros(24, np.float32),
    }
    inside = run(native_driver(), "nucleus", data)["op.out"] > -np.inf
    counts = inside.sum(axis=1)
    assert all(few <= many for few, many in pairwise(counts))
    mass = np.sort(np.exp(sample.log_softmax(data["logits"][:1].astype(np.float64))[0]))[::-1]
    upto = np.concatenate([[0.0], np.cumsum(mass)])
    assert (upto[counts] >= shares - sample.BORDER).all()
    assert (upto[counts - 1] < shares + sample.BORDER).all()
