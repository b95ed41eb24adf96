"""Arrivals, prompts, percentiles and the report's numbers, each against what they must be."""

from __future__ import annotations

import itertools
import math
import random
import xml.etree.ElementTree as ElementTree
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lostwax.evals.load.arrivals import arrivals
from lostwax.evals.load.chart import chart
from lostwax.evals.load.drive import Load, Measured
from lostwax.evals.load.prompts import FIRST_ID, RandomPrompts
from lostwax.evals.load.report import point_result, table
from lostwax.evals.load.statistics import PERCENTILES, described_ms, percentile
from lostwax.evals.load.stream import Timing
from lostwax.evals.task import TaskError


@pytest.mark.parametrize("count", [1, 2, 3, 10, 99, 100, 101, 1000])
def test_percentiles_are_those_of_numpy(count: int) -> None:
    draw = random.Random(count)
    seconds = [draw.lognormvariate(0, 2) for _ in range(count)]
    for percent in (0, 1, 37.5, 50, 90, 95, 99, 100):
        found = percentile(sorted(seconds), percent)
        assert found == pytest.approx(float(np.percentile(seconds, percent)), rel=1e-12)
    described = described_ms(seconds, "x")
    wanted = {f"p{p}_x_ms": np.percentile(seconds, p) for p in PERCENTILES}
    wanted |= {"mean_x_ms": np.mean(seconds), "std_x_ms": np.std(seconds)}
    wanted |= {"median_x_ms": np.median(seconds)}
    assert described == pytest.approx({k: float(v) * 1e3 for k, v in wanted.items()}, rel=1e-9)


def test_no_values_have_no_statistics() -> None:
    found = described_ms([], "ttft")
    assert set(found.values()) == {None}
    assert {"mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms"} <= set(found)


@pytest.mark.parametrize("rate", [0.5, 20.0])
def test_arrivals_are_a_poisson_process_of_the_rate(rate: float) -> None:
    count = 20_000
    at = list(itertools.islice(arrivals(rate, seed=1), count + 1))
    gaps = np.diff(at)
    assert at[0] == 0
    # The mean of n exponential gaps has a standard error of 1/(rate sqrt n): four of them.
    assert gaps.mean() == pytest.approx(1 / rate, rel=4 / math.sqrt(count))
    assert gaps.std() == pytest.approx(1 / rate, rel=0.05), "exponential: the deviation is the mean"
    assert (gaps > 1 / rate).mean() == pytest.approx(math.exp(-1), abs=0.02)
    counts = np.histogram(at, bins=int(at[-1] * rate / 10))[0]
    assert counts.var() == pytest.approx(counts.mean(), rel=0.15), "Poisson: variance is the mean"


def test_a_seed_decides_arrivals_and_an_unlimited_rate_has_all_at_once() -> None:
    first, again, other = (list(itertools.islice(arrivals(2, seed), 50)) for seed in (1, 1, 2))
    assert first == again != other
    assert set(itertools.islice(arrivals(math.inf, 1), 50)) == {0.0}


def drawn(count: int, **fields: Any) -> list[Any]:
    shape: dict[str, Any] = {"kind": "ids", "input_len": 9, "output_len": 4} | fields
    return [p.content for p in itertools.islice(RandomPrompts(**shape), count)]


def test_random_ids_have_the_length_lie_in_the_vocabulary_and_follow_from_the_seed() -> None:
    prompts = drawn(400, vocab_size=20)
    assert {len(ids) for ids in prompts} == {9}
    assert {i for ids in prompts for i in ids} == set(range(FIRST_ID, 20))
    assert len(set(map(tuple, prompts))) == 400, "no prompt repeats another"
    assert prompts == drawn(400, vocab_size=20)
    assert prompts != drawn(400, vocab_size=20, seed=1)


def test_prefixes_are_shared_in_turns_and_the_rest_is_not() -> None:
    prompts = drawn(12, prefix_len=5, num_prefixes=3)
    assert {len(ids) for ids in prompts} == {14}
    heads = [tuple(ids[:5]) for ids in prompts]
    assert len(set(heads)) == 3
    assert heads == heads[:3] * 4
    assert len({tuple(ids[5:]) for ids in prompts}) == 12
    assert heads == [tuple(ids[:5]) for ids in drawn(12, prefix_len=5, num_prefixes=3, input_len=2)]


def test_text_has_as_many_words_as_asked() -> None:
    prompts = drawn(20, kind="text", prefix_len=3)
    assert {len(text.split()) for text in prompts} == {12}
    assert len({text.split()[3] for text in prompts}) > 5
    assert len({tuple(text.split()[:3]) for text in prompts}) == 1


@pytest.mark.parametrize("wrong", [{"input_len": 0}, {"vocab_size": FIRST_ID}, {"num_prefixes": 0}])
def test_prompts_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(TaskError, match=r"at least 1|ids begin at 3"):
        drawn(1, **wrong)


def test_a_load_without_an_end_is_refused() -> None:
    with pytest.raises(TaskError, match="a load must end"):
        Load()
    with pytest.raises(TaskError, match="asks without end at once"):
        Load(duration_s=1)
    Load(duration_s=1, rate=3)
    Load(duration_s=1, concurrency=3)


def timing(first: float, gaps: list[float], tokens: int, prompt: int = 10) -> Timing:
    return Timing(first, first + sum(gaps), array("d", gaps), prompt, tokens)


def measured(answers: list[Timing], seconds: float = 2.0, **faults: int) -> Measured:
    found = Measured(answers, Counter(faults), [0.0] * len(answers), max_in_flight=3)
    found.own.seconds, found.own.cpu_s, found.own.lags_s = seconds, 0.2, [0.001] * 100
    return found


def test_tokens_are_counted_by_usage_and_not_by_chunks() -> None:
    # Two chunks that bring 9 tokens: 8 of them took 0.4 s behind the first.
    answers = [timing(0.1, [0.4], tokens=9), timing(0.3, [], tokens=1)]
    found = point_result(measured(answers, down=3), Load(num_prompts=5), {"model_id": "m"})
    assert (found["completed"], found["failed"], found["num_prompts"]) == (2, 3, 5)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (20, 10)
    assert found["request_throughput"] == 1.0
    assert found["output_throughput"] == 5.0
    assert found["total_token_throughput"] == 15.0
    assert found["mean_ttft_ms"] == pytest.approx(200)
    assert found["mean_tpot_ms"] == pytest.approx(50), "an answer of one token has none"
    assert found["mean_itl_ms"] == pytest.approx(400)
    assert found["p50_e2el_ms"] == pytest.approx(400)
    assert (found["request_rate"], found["max_concurrency"]) == ("inf", None)
    assert found["faults"] == [{"fault": "down", "count": 3}]
    assert found["client"]["cpu_us_per_token"] == pytest.approx(0.2 / 10 * 1e6)


def test_waiting_is_told_where_requests_arrive_over_time() -> None:
    load = Load(rate=2, concurrency=1, num_prompts=2)
    waited = measured([timing(0.1, [], 1)] * 2)
    waited.waits_s = [0.0, 0.5]
    assert point_result(waited, load, {})["mean_wait_ms"] == pytest.approx(250)
    assert "mean_wait_ms" not in point_result(waited, Load(num_prompts=2), {})


def test_a_client_that_shows_in_the_times_is_told() -> None:
    answers = [timing(0.1, [0.01] * 9, tokens=10)]
    quiet, busy, late = (measured(answers) for _ in range(3))
    busy.own.cpu_s = 1.9
    late.own.lags_s = [0.012] * 100
    load = Load(num_prompts=1)
    said = ["\n".join(table([point_result(m, load, {})])) for m in (quiet, busy, late)]
    assert "client" not in said[0]
    assert "this client used 95% of a core" in said[1]
    assert "this client's clock was up to 12 ms late (p99)" in said[2]


def test_the_table_has_a_line_a_load_and_a_dash_for_no_value() -> None:
    results = [
        point_result(measured([timing(0.1, [0.2], 3)]), Load(concurrency=4, num_prompts=1), {}),
        point_result(measured([], down=2), Load(rate=1.5, num_prompts=2), {}),
    ]
    head, first, second, fault = table(results)
    assert first.split()[:4] == ["inf", "4", "1", "0"]
    assert second.split() == ["1.5", "any", "2", "2", "0.00", "0.0", *"-------"]
    assert len(head) == len(first) == len(second)
    assert fault == "rate 1.5, at once any: 2 failed: down"


def results_of(points: Sequence[tuple[float, int | None]]) -> list[dict[str, Any]]:
    return [
        point_result(
            measured([timing(0.1 * n, [0.2], 3)]), Load(rate, concurrency, num_prompts=1), {}
        )
        for n, (rate, concurrency) in enumerate(points, 1)
    ]


def texts(svg: str) -> list[str]:
    tree = ElementTree.fromstring(svg)
    return [node.text or "" for node in tree.iter() if node.tag.endswith("text")]


def test_the_chart_has_a_place_for_each_concurrency_and_a_line_for_each_rate() -> None:
    points = [(rate, c) for rate in (2.0, math.inf) for c in (1, 8, 64)]
    svg = chart(results_of(points), "<model> & date")
    said = texts(svg)
    assert "<model> & date" in said
    assert all(said.count(label) == 2 for label in ("1", "8", "64", "requests at once"))
    assert said.count("requests a second: inf") == 2, "in the legend of either half"
    lines = [line for line in svg.splitlines() if line.startswith("<polyline")]
    assert [line.count(",") for line in lines] == [3] * 6, "p50, p99 and throughput a rate"
    assert svg.count("<circle") == 18


def test_the_chart_of_rates_alone_has_them_on_its_axis_and_leaves_out_what_failed() -> None:
    results = results_of([(1.0, None), (2.0, None), (math.inf, None)])
    results[1] |= {"p50_ttft_ms": None, "p99_ttft_ms": None}
    svg = chart(results, "m")
    assert texts(svg).count("requests a second") == 2
    assert {"1", "2", "inf"} <= set(texts(svg))
    assert svg.count("<circle") == 2 + 2 + 3


def test_a_higher_value_is_drawn_higher() -> None:
    svg = chart(results_of([(math.inf, 1), (math.inf, 2)]), "m")
    line = next(line for line in svg.splitlines() if line.startswith("<polyline"))
    (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in line.split('"')[1].split())
    assert x1 < x2
    assert y1 > y2, "SVG counts from the top"
